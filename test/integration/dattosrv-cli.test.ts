/**
 * Compares dattosrv's command line with its manual: refusals, output, and that both name the same options.
 */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { runProgram } from '../helpers/daemon.ts';
import { startDattosrv } from '../helpers/dattosrv.ts';
import { exec } from '../helpers/exec.ts';

const scratch = mkdtempSync(join(tmpdir(), 'dattosrv-cli-'));
after(() => rmSync(scratch, { recursive: true, force: true }));

const dattosrv = (...args: string[]) => runProgram('src/bin/dattosrv.ts', args);

test('wrong usage exits with 2, and prints one line and the next step', async () => {
  const file = join(scratch, 'file');
  writeFileSync(file, '');
  for (const args of [
    ['--nonsense'],
    ['--listen', 'nowhere:x', scratch],
    ['--listen', '0.0.0.0:0', scratch],
    ['--listen', '[::]:0', scratch],
    ['--max-connections', '0', scratch],
    ['--threads', '1.5', scratch],
    ['--log-level', 'loud', scratch],
    ['--unix', join(scratch, 's'), '--listen', '127.0.0.1:0', scratch],
    ['--create', '--read-only', scratch],
    ['--default-export', '../x', scratch],
    ['--tls-verify-peer', scratch],
    ['--tls-certificates', scratch, '--tls-psk', file, scratch],
    ['/nonexistent'],
    [file],
    [scratch, 'another'],
    ['--directory', scratch, scratch],
  ]) {
    const { code, stdout, stderr } = await dattosrv(...args);
    assert.equal(code, 2, args.join(' '));
    assert.equal(stdout, '');
    assert.notEqual(stderr, '');
  }
});

test('a ready line or a help text that cannot be written is a failure, and dattosrv does not serve', async () => {
  const full = await open('/dev/full', 'w');
  const socket = join(scratch, 'never');
  try {
    for (const args of [['--unix', socket, scratch], ['--unix', socket, '--json', scratch], ['--help']]) {
      const { code, stderr } = await runProgram('src/bin/dattosrv.ts', args, { output: full.fd });
      assert.equal(code, 1, args.join(' '));
      assert.match(stderr, /could not be written to standard output: ENOSPC/);
      assert.equal(existsSync(socket), false);
    }
  } finally {
    await full.close();
  }
});

test('a server that other users could reach is refused, with the alternatives', async () => {
  const { stderr } = await dattosrv('--listen', '0.0.0.0:0', '--json', scratch);
  const error = JSON.parse(stderr) as { code: string; hint: string };
  assert.equal(error.code, 'BAD_USAGE');
  assert.match(error.hint, /--tls-verify-peer.*--tls-psk/);
  const outward = Object.values(networkInterfaces())
    .flat()
    .find((address) => address?.internal === false);
  if (outward !== undefined)
    assert.equal((await dattosrv('--listen', `${outward.address}:0`, scratch)).code, 2);
});

test('missing credentials and an address in use exit with 1', async (t) => {
  assert.equal((await dattosrv('--tls-certificates', scratch, scratch)).code, 1);
  const psk = join(scratch, 'keys');
  writeFileSync(psk, 'no key\n', { mode: 0o600 });
  assert.match((await dattosrv('--tls-psk', psk, scratch)).stderr, /identity:hexkey/);
  const server = await startDattosrv(t, [], { tcp: true });
  const { code, stderr } = await dattosrv('--listen', `127.0.0.1:${server.port}`, scratch);
  assert.equal(code, 1);
  assert.match(stderr, /EADDRINUSE/);
  const second = await startDattosrv(t);
  assert.equal((await dattosrv('--unix', second.socket, scratch)).code, 1);
  assert.equal(statSync(second.socket).mode & 0o777, 0o600);
});

test('a socket left behind by a killed server is taken over', async (t) => {
  const first = await startDattosrv(t, ['--create']);
  await first.kill();
  assert.ok(statSync(first.socket).isSocket());
  const second = await startDattosrv(t, ['--unix', first.socket, '--default-export', 'main@1M', '--create']);
  assert.match((await exec('nbdinfo', ['--size', `nbd+unix:///?socket=${first.socket}`])).stdout, /1048576/);
  assert.equal(await second.stop(), 0);
});

test('the manual and --help name the same options', async () => {
  const manual = readFileSync(fileURLToPath(new URL('../../docs/dattosrv.md', import.meta.url)), 'utf8');
  const { stdout, code } = await dattosrv('--help');
  assert.equal(code, 0);
  const options = (text: string): string[] => [...new Set(text.match(/(?<![\w-])--[a-z][a-z-]+/g))].sort();
  const table = manual
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .join('\n');
  assert.deepEqual(options(table), options(stdout));
});
