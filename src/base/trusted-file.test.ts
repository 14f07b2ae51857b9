import assert from 'node:assert/strict';
import { execFile, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { promisify } from 'node:util';
import { AgentError } from './errors.ts';
import { checkTrusted, readTrusted, type TrustedKind } from './trusted-file.ts';

const directory = mkdtempSync(join(tmpdir(), 'trusted-'));
after(() => rmSync(directory, { recursive: true }));

function file(mode: number, name = 'file'): string {
  const path = join(directory, name);
  writeFileSync(path, 'text');
  chmodSync(path, mode);
  return path;
}

/** Returns `ok`, or the hint of the error. */
async function verdict(path: string, kind: TrustedKind, who?: { uid: number }): Promise<string> {
  try {
    assert.equal((await readTrusted(path, kind, who)).toString(), 'text');
    await checkTrusted(path, kind, who);
    return 'ok';
  } catch (error) {
    assert.ok(error instanceof AgentError && error.code === 'UNSAFE_FILE', String(error));
    return (error.hint ?? '').replace(
      ' (a filesystem without modes, such as FAT: mount it with umask=077)',
      '',
    );
  }
}

test('a secret is refused if other users may read or change it', async () => {
  for (const [mode, expected] of [
    [0o600, 'ok'],
    [0o400, 'ok'],
    [0o700, 'ok'],
    ...[0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o666, 0o777].map((each) => [each, 'chmod 600'] as const),
  ] as const) {
    const path = file(mode);
    const said = await verdict(path, 'secret');
    assert.equal(said, expected === 'ok' ? 'ok' : `Run: chmod 600 '${path}'`, mode.toString(8));
  }
});

test('configuration and hooks are refused if other users may change them', async () => {
  for (const kind of ['configuration', 'hook'] as const)
    for (const [mode, safe] of [
      [0o600, true],
      [0o644, true],
      [0o755, true],
      [0o664, false],
      [0o646, false],
      [0o777, false],
    ] as const) {
      const path = file(mode);
      assert.equal(await verdict(path, kind), safe ? 'ok' : `Run: chmod go-w '${path}'`, mode.toString(8));
    }
  await assert.rejects(readTrusted(file(0o666), 'hook'), {
    message: `${join(directory, 'file')} has mode 0666: other users may change this hook`,
  });
});

test('a folder in which other users may replace the file is refused, also behind a link', async () => {
  const open = join(directory, 'open');
  const inner = join(open, 'inner');
  mkdirSync(inner, { recursive: true });
  const path = file(0o600, 'open/inner/file');
  const link = join(directory, 'link');
  symlinkSync(path, link);
  const linkInOpen = join(open, 'link');
  symlinkSync(file(0o600, 'closed'), linkInOpen);
  for (const [mode, safe] of [
    [0o777, false],
    [0o775, false],
    [0o1777, true],
    [0o755, true],
  ] as const) {
    chmodSync(open, mode);
    for (const name of [path, link, linkInOpen]) {
      const expected = safe ? 'ok' : `Run: chmod go-w '${open}'`;
      assert.equal(await verdict(name, 'configuration'), expected, `${mode.toString(8)} ${name}`);
      // As in ssh, only the file of a secret is checked, not its folders.
      assert.equal(await verdict(name, 'secret'), 'ok');
    }
  }
});

test('the owner must be root or the user', async (t) => {
  const path = file(0o600);
  const uid = process.geteuid!();
  assert.equal(await verdict(path, 'secret', { uid }), 'ok');
  if (uid !== 0) {
    t.diagnostic('the rest needs root');
    return;
  }
  execFileSync('chown', ['1234', path]);
  assert.equal(await verdict(path, 'secret', { uid: 0 }), `Run: chown root '${path}'`);
  assert.equal(await verdict(path, 'secret', { uid: 77 }), `Run: chown 77 '${path}'`);
  assert.equal(await verdict(path, 'secret', { uid: 1234 }), 'ok');
  assert.equal(await verdict(path, 'hook', { uid: 0 }), `Run: chown root '${path}'`);
  // A key that belongs to root and that the group of a service may read (root:ssl-cert).
  execFileSync('chown', ['0', path]);
  chmodSync(path, 0o640);
  assert.equal(await verdict(path, 'secret', { uid: 1234 }), 'ok');
  chmodSync(path, 0o644);
  assert.equal(await verdict(path, 'secret', { uid: 1234 }), `Run: chmod 640 '${path}'`);
});

test('configuration and hooks must be regular files, and a pipe without a writer does not block the call', async () => {
  const pipe = join(directory, 'no-writer');
  execFileSync('mkfifo', ['-m', '600', pipe]);
  for (const kind of ['configuration', 'hook'] as const)
    for (const path of [pipe, directory, '/dev/null']) {
      const refused = { code: 'UNSAFE_FILE', message: /is not a regular file/ };
      await assert.rejects(readTrusted(path, kind), refused);
      await assert.rejects(checkTrusted(path, kind), refused);
    }
  assert.equal((await readTrusted('/dev/null', 'secret')).length, 0);
});

test('a secret that a shell writes in pieces is read completely', async () => {
  const reading = `import { readTrusted } from ${JSON.stringify(new URL('trusted-file.ts', import.meta.url).href)};
    process.stdout.write(await readTrusted(process.argv[1], 'secret'));`;
  const script = '"$0" --input-type=module -e "$1" <(printf te; sleep 0.3; printf xt)';
  const { stdout } = await promisify(execFile)('bash', ['-c', script, process.execPath, reading]);
  assert.equal(stdout, 'text');
});

test('a pipe of the caller is accepted, and a missing file is a system error', async () => {
  const pipe = join(directory, 'pipe');
  execFileSync('mkfifo', ['-m', '644', pipe]);
  const writer = spawn('sh', ['-c', 'printf text > "$0"', pipe]);
  const ended = once(writer, 'exit');
  assert.equal((await readTrusted(pipe, 'secret')).toString(), 'text');
  await ended;
  await assert.rejects(readTrusted(join(directory, 'none'), 'secret'), { code: 'ENOENT' });
});
