import assert from 'node:assert/strict';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { ExportError } from './backend.ts';
import { DirectoryExports, type DirectoryExportsOptions } from './directory-exports.ts';

let directory = '';
beforeEach(() => (directory = mkdtempSync(join(tmpdir(), 'exports-'))));
afterEach(() => rmSync(directory, { recursive: true }));

function exportsOf(options: Partial<DirectoryExportsOptions> = {}): DirectoryExports {
  return new DirectoryExports({
    directory,
    readOnly: false,
    create: true,
    defaultExport: undefined,
    ...options,
  });
}

function refuses(reason: ExportError['reason'], text: RegExp): (error: unknown) => boolean {
  return (error) => error instanceof ExportError && error.reason === reason && text.test(error.message);
}

test('an image is created once, with its size, as a hole', async () => {
  const exports = exportsOf();
  assert.equal(exports.describe('a.img@1M').size, 2 ** 20);
  assert.deepEqual(readdirSync(directory), [], 'describing makes nothing');
  const backends = await Promise.all(['a.img@1M', 'a.img@1M', 'a.img@1M'].map((name) => exports.open(name)));
  assert.deepEqual(readdirSync(directory), ['a.img']);
  assert.equal(statSync(join(directory, 'a.img')).size, 2 ** 20);
  assert.deepEqual(backends[0]?.status(0, 2 ** 20, 10), [{ length: 2 ** 20, hole: true, zero: true }]);
  for (const backend of backends) backend.close();
  const again = await exports.open('a.img');
  assert.equal(again.size, 2 ** 20);
  again.close();
});

test('a different size is refused with both numbers', async () => {
  const exports = exportsOf();
  (await exports.open('a@1M')).close();
  await assert.rejects(exports.open('a@2M'), refuses('invalid', /1048576 .* 2097152/));
  assert.throws(() => exports.describe('a@2M'), refuses('invalid', /1048576 .* 2097152/));
  assert.equal(statSync(join(directory, 'a')).size, 2 ** 20);
});

test('no image is created without --create', async () => {
  for (const options of [{ create: false }, { readOnly: true }])
    await assert.rejects(exportsOf(options).open('a@1M'), refuses('unknown', /--create/));
  await assert.rejects(exportsOf().open('a'), refuses('unknown', /a@SIZE/));
  assert.deepEqual(readdirSync(directory), []);
});

test('an image that is too large for the filesystem leaves no file behind', async () => {
  // No filesystem has files of this size, but some accept the truncate.
  await exportsOf()
    .open('a@9007199254740991')
    .then((backend) => backend.close())
    .catch((error: unknown) => {
      assert.ok(error instanceof ExportError && error.reason === 'policy', String(error));
      assert.deepEqual(readdirSync(directory), []);
    });
});

test('only regular files with valid names are listed and opened', async () => {
  writeFileSync(join(directory, 'real'), 'x');
  writeFileSync(join(directory, '.hidden'), 'x');
  writeFileSync(join(directory, 'a b'), 'x');
  mkdirSync(join(directory, 'folder'));
  symlinkSync('real', join(directory, 'link'));
  symlinkSync('/dev/null', join(directory, 'device'));
  const exports = exportsOf();
  assert.deepEqual(await exports.list(), [{ name: 'real', description: '' }]);
  await assert.rejects(exports.open('link'), refuses('policy', /symbolic link/));
  await assert.rejects(exports.open('device'), refuses('policy', /symbolic link/));
  await assert.rejects(exports.open('folder'), refuses('policy', /regular file/));
  await assert.rejects(exports.open('link@1M'), refuses('policy', /symbolic link/));
  for (const name of ['.hidden', '../real', '/etc/passwd', 'folder/../real'])
    await assert.rejects(exports.open(name), refuses('invalid', /name of an image/));
});

test('the empty name is the default export, if there is one', async () => {
  await assert.rejects(exportsOf().open(''), refuses('unknown', /no default export/));
  const exports = exportsOf({ defaultExport: 'main@4K' });
  assert.equal(exports.describe('').name, 'main');
  const backend = await exports.open('');
  assert.equal(backend.size, 4096);
  backend.close();
});

test('an export is read-only if the server is, or if its file has no write bits', async () => {
  writeFileSync(join(directory, 'done'), 'x', { mode: 0o444 });
  writeFileSync(join(directory, 'open'), 'x', { mode: 0o644 });
  for (const [options, name, readOnly] of [
    [{}, 'done', true],
    [{}, 'open', false],
    [{ readOnly: true }, 'open', true],
  ] as const) {
    const exports = exportsOf(options);
    assert.equal(exports.describe(name).readOnly, readOnly);
    const backend = await exports.open(name);
    assert.equal(backend.readOnly, readOnly);
    backend.close();
  }
});

test('reads of an image that was truncated fail with both sizes', async () => {
  const exports = exportsOf();
  const backend = await exports.open('a@8K');
  truncateSync(join(directory, 'a'), 4096);
  assert.throws(() => backend.read(Buffer.alloc(8192), 0), { code: 'EIO', message: /4096.*8192/ });
  backend.close();
});
