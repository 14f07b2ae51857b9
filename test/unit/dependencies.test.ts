import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

const root = join(import.meta.dirname, '../..');
const read = (path: string) => readFileSync(join(root, path), 'utf8');
const manifest = JSON.parse(read('package.json')) as Record<string, Record<string, string> | undefined>;
const pinned = new Map(
  ['dependencies', 'optionalDependencies', 'devDependencies'].flatMap((kind) =>
    Object.entries(manifest[kind] ?? {}),
  ),
);

test('docs/dependencies.md lists each package of package.json with its version, and no other', () => {
  const documented = new Map<string, string>();
  for (const line of read('docs/dependencies.md').split('\n')) {
    const [, name, version, why] = line.split('|').map((cell) => cell.trim());
    if (name === undefined || !/^\d+\.\d+\.\d+$/.test(version ?? '')) continue;
    assert.ok(why !== undefined && why.length > 10, `${name} has no reason`);
    documented.set(name, version!);
  }
  assert.deepEqual([...documented].sort(), [...pinned].sort());
});

test('package.json pins exact versions', () => {
  for (const [name, version] of pinned) assert.match(version, /^\d+\.\d+\.\d+$/, name);
});

test('package-lock.json names no registry, so that it works with any', () => {
  const lock = read('package-lock.json');
  assert.doesNotMatch(lock, /"resolved"/);
  const { packages } = JSON.parse(lock) as { packages: Record<string, { integrity?: string }> };
  for (const [folder, { integrity }] of Object.entries(packages))
    if (folder !== '') assert.match(integrity ?? '', /^sha512-/, folder);
});

test('package-lock.json has the native parts of both architectures', () => {
  const { packages } = JSON.parse(read('package-lock.json')) as { packages: Record<string, unknown> };
  for (const arch of ['x64', 'arm64'])
    for (const name of [
      `node-linux-${arch}`,
      `@koromix/koffi-linux-${arch}`,
      `@napi-rs/blake-hash-linux-${arch}-gnu`,
      `@esbuild/linux-${arch}`,
    ])
      assert.ok(`node_modules/${name}` in packages, name);
});
