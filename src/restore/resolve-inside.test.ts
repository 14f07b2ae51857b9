/** Compares our path resolution with the kernel's: openat2(2) with RESOLVE_IN_ROOT. */
import assert from 'node:assert/strict';
import { closeSync, lstatSync, mkdtempSync, openSync, readlinkSync, realpathSync, constants } from 'node:fs';
import { mkdir, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { errnoCode } from '../base/errors.ts';
import { checked, declare } from '../linux/libc.ts';
import { resolveInside } from './resolve-inside.ts';

/** `base` stands for the running system, `root` in it for the image. */
const base = realpathSync(mkdtempSync(join(tmpdir(), 'resolve-inside-')));
const root = join(base, 'root');
before(async () => {
  await mkdir(join(base, 'secret'));
  await writeFile(join(base, 'secret', 'file'), '');
});
after(() => rm(base, { recursive: true }));

/** Targets of the links to make, by the path of the link. */
type Links = Readonly<Record<string, string>>;

async function makeTree(links: Links): Promise<void> {
  await rm(root, { recursive: true, force: true });
  await mkdir(join(root, 'a', 'b'), { recursive: true });
  await mkdir(join(root, '..x'));
  await writeFile(join(root, 'file'), '');
  await writeFile(join(root, 'a', 'file'), '');
  await writeFile(join(root, '..x', '...'), '');
  for (const [place, target] of Object.entries(links)) await symlink(target, join(root, place));
}

const oPath = 0o10000000;
const resolveInRoot = 0x10;
const openat2 = declare<[number: number, directory: number, path: string, how: Uint8Array, size: number]>(
  'syscall',
  'long',
  ['long', 'int', 'const char *', 'void *', 'size_t'],
);

/** Returns the path that the kernel resolves to, relative to the root, or the name of its error. */
function byKernel(path: string): string {
  // include/uapi/linux/openat2.h: struct open_how.
  const how = Buffer.alloc(24);
  how.writeBigUInt64LE(BigInt(oPath | constants.O_NOFOLLOW), 0);
  how.writeBigUInt64LE(BigInt(resolveInRoot), 16);
  const directory = openSync(root, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    for (;;)
      try {
        const fd = checked(openat2, [437, directory, path, how, how.length], 'openat2');
        try {
          return relative(root, readlinkSync(`/proc/self/fd/${fd}`)) || '.';
        } finally {
          closeSync(fd);
        }
      } catch (thrown) {
        // A rename or mount by any other process in the meantime causes EAGAIN.
        if (errnoCode(thrown) !== 'EAGAIN') return errnoCode(thrown)!;
      }
  } finally {
    closeSync(directory);
  }
}

/** Checks that no directory of the path is a link, so that the path stays below the root when the system resolves it. */
function assertInside(path: string): void {
  const place = join(root, path);
  lstatSync(place);
  assert.ok(path === '.' || (!path.startsWith('/') && !path.split('/').includes('..')), path);
  if (path !== '.') assert.equal(realpathSync(dirname(place)), dirname(place), path);
}

/** Returns the resolved path, or the name of the error. */
async function resolved(path: string): Promise<string> {
  try {
    return await resolveInside(root, path);
  } catch (error) {
    assert.equal(errnoCode(error), 'FILE_ERROR');
    return /\((E[A-Z_]+)\)$/.exec((error as Error).message)![1]!;
  }
}

test('paths are resolved within the image, and its links do not lead out of it', async () => {
  await makeTree({
    up: '../../../..',
    absolute: '/a/b',
    system: join(base, 'secret'),
    'a/beside': '../../secret',
    'a/b/file': '../../file',
    loop: 'loop',
    dangling: 'nowhere',
  });
  for (const [path, expected] of [
    ['/', '.'],
    ['', '.'],
    ['..', '.'],
    ['../../a/./b//', 'a/b'],
    ['/a/../../../secret', 'ENOENT'],
    ['..x/...', '..x/...'],
    ['up/a', 'a'],
    ['up/up/up/secret', 'ENOENT'],
    ['absolute/file', 'a/b/file'],
    ['absolute/../file', 'a/file'],
    ['system/file', 'ENOENT'],
    ['a/beside/file', 'ENOENT'],
    ['loop/x', 'ELOOP'],
    ['file/x', 'ENOTDIR'],
    // The last component may be a link to any target.
    ['system', 'system'],
    ['a/beside/', 'a/beside'],
    ['loop', 'loop'],
    ['dangling', 'dangling'],
    ['a\0b', 'ERR_INVALID_ARG_VALUE'],
  ] as const) {
    assert.equal(await resolved(path), expected, path);
    if (!expected.startsWith('E')) assertInside(expected);
  }
});

test('40 links are followed, like in the kernel', async (t) => {
  await makeTree({});
  if (byKernel('a') !== 'a') {
    t.skip(`openat2 fails with ${byKernel('a')}`);
    return;
  }
  const chain = (length: number): Links =>
    Object.fromEntries(Array.from({ length }, (_, i) => [`l${i}`, i === 0 ? 'a' : `l${i - 1}`]));
  await makeTree(chain(41));
  for (const path of ['l39/file', 'l40/file']) assert.equal(await resolved(path), byKernel(path), path);
  assert.deepEqual([await resolved('l39/file'), await resolved('l40/file')], ['a/file', 'ELOOP']);
});

test('for any links, a path resolves as the kernel resolves it in that root', async (t) => {
  await makeTree({});
  if (byKernel('a') !== 'a') {
    t.skip(`openat2 fails with ${byKernel('a')}`);
    return;
  }
  const part = fc.constantFrom(
    'a',
    'b',
    '..',
    '..',
    '.',
    '',
    '..x',
    '...',
    'file',
    'l',
    'm',
    'n',
    'root',
    'secret',
  );
  const path = fc
    .tuple(fc.boolean(), fc.array(part, { minLength: 1, maxLength: 8 }))
    .map(([absolute, parts]) => `${absolute ? '/' : ''}${parts.join('/')}`);
  const target = fc.oneof(
    { weight: 5, arbitrary: path.filter((text) => text !== '') },
    fc.constantFrom('/', '..', '../..', '/proc/self/cwd', '/etc'),
    fc.constant('secret').map((name) => join(base, name)),
  );
  const links = fc.record({ l: target, 'a/m': target, 'a/b/n': target, '..x/l': target, m: target });
  await fc.assert(
    fc.asyncProperty(links, fc.array(path, { minLength: 10, maxLength: 30 }), async (made, paths) => {
      await makeTree(made);
      for (const each of paths) {
        const found = await resolved(each);
        if (!/^E[A-Z]+$/.test(found)) assertInside(found);
        // A link at the end is not followed, also with a slash after it.
        const kernel = byKernel(each.replace(/(?<=.)(\/\.?)+$/, '') || '.');
        // The kernel refuses `file/..`; we accept it, which does no harm.
        if (kernel !== 'ENOTDIR') assert.equal(found, kernel, `${each} with ${JSON.stringify(made)}`);
      }
    }),
    { numRuns: 60 },
  );
});
