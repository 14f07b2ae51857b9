/**
 * Makes `build/`: bundles, native modules, the pinned Node runtime and the launchers (see docs/build.md). The folder
 * needs nothing else and may be copied anywhere. Two builds of one commit are identical. The new folder is made beside
 * the old one and then replaces it, so that a failed build does not touch the old one.
 */
import {
  chmodSync,
  copyFileSync,
  globSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { bundle } from './bundle.ts';
import { findEntries } from './entries.ts';
import { launcher } from './launcher.ts';
import { thirdPartyLicences } from './licences.ts';
import { sbom, sha256 } from './sbom.ts';

const root = join(import.meta.dirname, '../..');
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { out: { type: 'string', default: join(root, 'build') } },
});
const debug = positionals[0] === 'debug';
if (positionals.length > (debug ? 1 : 0)) {
  console.error('usage: ./one_step_build [debug] [--out FOLDER]');
  process.exit(2);
}

const say = (line: string) => console.log(`build: ${line}`);
const started = performance.now();
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
const final = resolve(values.out);
const fresh = `${final}.new`;
rmSync(fresh, { recursive: true, force: true });
mkdirSync(join(fresh, 'lib'), { recursive: true });

const entries = findEntries(join(root, 'src'));
say(`version ${version}, ${debug ? 'debug' : 'release'}, ${entries.length} entries`);
const { files, packages } = await bundle({ root, entries, outdir: join(fresh, 'lib'), version, debug });
say(`bundled ${files} files into build/lib`);

// With this file, Node does not have to guess that the bundles are ES modules.
writeFileSync(join(fresh, 'lib/package.json'), '{ "type": "module" }\n');

const runtime = join(root, `node_modules/node-linux-${process.arch}`);
mkdirSync(join(fresh, 'runtime'));
copyFileSync(join(runtime, 'bin/node'), join(fresh, 'runtime/node'));
copyFileSync(join(runtime, 'LICENSE'), join(fresh, 'runtime/LICENSE'));
chmodSync(join(fresh, 'runtime/node'), 0o755);
say(`copied Node ${process.version} to build/runtime`);

for (const entry of entries.filter((each) => each.program)) {
  const path = join(fresh, entry.name);
  writeFileSync(path, launcher(entry.name, debug));
  chmodSync(path, 0o755);
  say(`made ${entry.name}`);
}

copyFileSync(join(root, 'LICENSE'), join(fresh, 'LICENSE'));
writeFileSync(join(fresh, 'THIRD_PARTY_LICENSES.txt'), thirdPartyLicences(root, packages));
writeFileSync(join(fresh, 'VERSION'), `${version}\n`);

const runtimeFile = { path: join(fresh, 'runtime/node'), versions: process.versions };
writeFileSync(join(fresh, 'sbom.cdx.json'), sbom({ root, version, packages, runtime: runtimeFile }));
writeFileSync(join(fresh, 'SHA256SUMS'), checksums(fresh));

rmSync(final, { recursive: true, force: true });
renameSync(fresh, final);
say(`done in ${((performance.now() - started) / 1000).toFixed(1)} s`);

/** Returns the checksums of all files in the folder, for `sha256sum --check`. */
function checksums(folder: string): string {
  const files = globSync('**', { cwd: folder }).filter((path) => lstatSync(join(folder, path)).isFile());
  return files
    .sort()
    .map((path) => `${sha256(join(folder, path))}  ${path}\n`)
    .join('');
}
