/**
 * Runs ./quickstart like a user: without arguments, of a real device, interrupted by Ctrl-C, and refused. It
 * leaves nothing behind. Needs ./one_step_build to have run (otherwise it would build by itself as part of
 * the test).
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { makeLoop } from '../helpers/loop.ts';

const root = join(import.meta.dirname, '../..');
let scratch: string;

beforeEach(() => {
  scratch = mkdtempSync(join(tmpdir(), 'qs-'));
});
afterEach(() => rmSync(scratch, { recursive: true, force: true }));

test('without arguments it backs up a busy device, proves the image, and restores from a vault', async () => {
  const { code, output } = await quickstart([]);
  assert.equal(code, 0, output);
  assert.match(output, /e2fsck -f -n finds nothing to mend/);
  assert.match(output, /\d{4} files are byte for byte those of the source at the freeze/);
  assert.match(output, /image proven/);
  assert.match(output, /^\$ dattocli vault init$/m);
  assert.match(output, /ok {4}\/changed by quickstart\/file 7 is byte for byte what it was/);
  assert.match(output, /what came back from the vault is proven/);
  assertNothingLeft();
});

test('Ctrl-C in the middle of the backup cleans everything up', async () => {
  const { code, output } = await quickstart([], 'quickstart: backing up');
  assert.equal(code, 130, output);
  assert.match(output, /SIGINT, cleaning up/);
  assert.doesNotMatch(output, /could not/);
  assertNothingLeft();
});

test('SOURCE DIRECTORY: a mounted XFS device into a directory; refused on the device itself', async (t) => {
  const disk = await makeLoop(t, { size: 320 * 1024 * 1024, filesystem: 'xfs', mount: true });
  for (let number = 0; number < 50; number++)
    writeFileSync(join(disk.mountPoint!, `file ${number}`), Buffer.alloc(5000 * number, `${number} `));
  const images = join(scratch, 'images');
  mkdirSync(images);
  const { code, output } = await quickstart([disk.mountPoint!, images]);
  assert.equal(code, 0, output);
  assert.match(output, /xfs_repair -n finds nothing to mend/);
  assert.match(output, /50 files are byte for byte/);
  assert.match(output, /image proven/);
  assert.equal(readdirSync(images).length, 1);

  const itself = join(disk.mountPoint!, 'images');
  mkdirSync(itself);
  const refused = await quickstart([disk.device, itself]);
  assert.equal(refused.code, 1);
  assert.match(refused.output, /lies on .*an image cannot be kept on the device that it is an image of/);
  assert.deepEqual(readdirSync(itself), []);
  assertNothingLeft();
});

/** Runs it in its own process group. `interruptAt` sends Ctrl-C once the output contains that text. */
async function quickstart(args: readonly string[], interruptAt?: string) {
  const child = spawn(join(root, 'quickstart'), args, {
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, TMPDIR: scratch },
  });
  let output = '';
  let interrupted = false;
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
      if (interruptAt === undefined || interrupted || !output.includes(interruptAt)) return;
      interrupted = true;
      process.kill(-child.pid!, 'SIGINT');
    });
  const watchdog = setTimeout(() => child.kill('SIGTERM'), 120_000);
  await once(child, 'close');
  clearTimeout(watchdog);
  return { code: child.exitCode, output };
}

function assertNothingLeft(): void {
  assert.doesNotMatch(readFileSync('/proc/self/mountinfo', 'utf8'), new RegExp(`${scratch}/quickstart-`));
  for (const name of readdirSync('/sys/block')) {
    const backing = `/sys/block/${name}/loop/backing_file`;
    if (existsSync(backing)) assert.doesNotMatch(readFileSync(backing, 'utf8'), new RegExp(scratch));
  }
  assert.deepEqual(
    readdirSync(scratch).filter((name) => name.startsWith('quickstart-')),
    [],
  );
}
