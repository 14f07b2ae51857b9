/**
 * Writes the parts of docs/ that are generated from the code. A part lies between `<!-- begin NAME -->` and
 * `<!-- end -->`. People write the rest of these files.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { format, resolveConfig } from 'prettier';
import { errorKinds } from '../../src/base/error-codes.ts';
import { warningSummaries } from '../../src/base/warning-codes.ts';
import { helpTexts } from './help.ts';
import { daemonCommand } from '../../src/daemon/command-line.ts';
import { apiParts, type OpenApi, openApi } from './api.ts';
import { table } from './table.ts';
import { vaultDocuments } from './vault-documents.ts';

const directory = join(import.meta.dirname, '../../docs');
const files = ['cli.md', 'dattod.md', 'api.md', 'errors.md', 'vault.md'];

/** Returns the content of each generated part, by its name. */
function generatedParts(api: OpenApi): ReadonlyMap<string, string> {
  const help = [...helpTexts()].map(([name, text]): [string, string] => [`help ${name}`, fenced(text)]);
  return new Map([
    ...help,
    ['help dattod', fenced(daemonCommand().helpInformation())],
    ...apiParts(api),
    ['vault documents', vaultDocuments()],
    [
      'error codes',
      table(
        ['code', 'exit', 'meaning'],
        Object.entries(errorKinds).map(([code, kind]) => [
          `\`${code}\``,
          String(kind.exit),
          kind.retry === true ? `${kind.summary} May go by itself: try again.` : kind.summary,
        ]),
      ),
    ],
    [
      'warning codes',
      table(
        ['code', 'meaning'],
        Object.entries(warningSummaries).map(([code, summary]) => [`\`${code}\``, summary]),
      ),
    ],
  ]);
}

/** Returns the names of the files whose parts are out of date. Throws if a part is missing or unknown. */
export async function checkDocs(): Promise<string[]> {
  const stale: string[] = [];
  for (const { path, now, wanted } of await renderAll()) if (now !== wanted) stale.push(path);
  return stale;
}

/** Updates the files whose parts are out of date. Returns their names. */
export async function writeDocs(): Promise<string[]> {
  const written: string[] = [];
  for (const { path, now, wanted } of await renderAll()) {
    if (now === wanted) continue;
    writeFileSync(join(directory, path), wanted);
    written.push(path);
  }
  return written;
}

async function renderAll(): Promise<{ path: string; now: string; wanted: string }[]> {
  const api = await openApi();
  const parts = generatedParts(api);
  const seen = new Set<string>();
  const rendered = [await renderOpenApi(api)];
  for (const path of files) {
    const file = join(directory, path);
    const now = readFileSync(file, 'utf8');
    const filled = now.replaceAll(
      /(<!-- begin (.+?) -->\n)[^]*?(<!-- end -->)/g,
      (_all, begin: string, name: string, end: string) => {
        const part = parts.get(name);
        if (part === undefined) throw new Error(`docs/${path} has a part "${name}" that nothing generates`);
        seen.add(name);
        return `${begin}\n${part}\n${end}`;
      },
    );
    const config = await resolveConfig(file);
    rendered.push({ path, now, wanted: await format(filled, { ...config, parser: 'markdown' }) });
  }
  for (const name of parts.keys())
    if (!seen.has(name)) throw new Error(`no file of docs/ has the part "${name}"`);
  return rendered;
}

async function renderOpenApi(api: OpenApi): Promise<{ path: string; now: string; wanted: string }> {
  const path = 'openapi.json';
  const file = join(directory, path);
  const config = await resolveConfig(file);
  // The version is that of the program; the document in docs/ does not change with it.
  const text = JSON.stringify({ ...api, info: { ...api.info, version: '1' } }, null, 2);
  return {
    path,
    now: existsSync(file) ? readFileSync(file, 'utf8') : '',
    wanted: await format(text, { ...config, parser: 'json' }),
  };
}

function fenced(text: string): string {
  return `\`\`\`text\n${text.trimEnd()}\n\`\`\`\n`;
}
