/** The notices that the licences of the bundled packages require, as one text. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/**
 * Returns the text. `packages` are folders relative to `root`. Throws if a package has neither a licence text nor the
 * name of a licence.
 */
export function thirdPartyLicences(root: string, packages: readonly string[]): string {
  const parts = packages.map((folder) => {
    const path = join(root, folder);
    const about = JSON.parse(readFileSync(join(path, 'package.json'), 'utf8')) as {
      name: string;
      version: string;
      license?: string;
    };
    const files = existsSync(path)
      ? readdirSync(path).filter((name) => /^(licen[cs]e|copying|notice)/i.test(name))
      : [];
    const texts = files.sort().map((name) => readFileSync(join(path, name), 'utf8').trim());
    if (texts.length === 0 && about.license === undefined) throw new Error(`${folder} has no licence`);
    return `${about.name} ${about.version} (${about.license ?? 'see below'})\n\n${texts.join('\n\n')}\n`;
  });
  return `The programs in lib/ contain these packages.\nruntime/ has the licence of Node.js beside it.\n\n${parts.join(`\n${'-'.repeat(80)}\n\n`)}`;
}
