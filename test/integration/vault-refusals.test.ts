/**
 * Proves the errors of vaults: no key, a wrong one, a later version, no vault, a second one, a store that is
 * full or read-only. Also destinations that are in use or too small, and Ctrl-C. Each error is reported in
 * one line with the right exit code, and changes nothing.
 */
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { cp, mkdir, open, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { KiB, MiB } from '../../src/base/bytes.ts';
import type { VerifyDocument } from '../../src/api/vault/output/recovery.ts';
import { ChunkIndex } from '../../src/vault/index/chunk-index.ts';
import { openVault } from '../../src/vault/opening.ts';
import { backUp as backUpFor, daemonFor, refused, scratchFor } from '../helpers/backup.ts';
import { dattocliHere, documentOf, refusedHere } from '../helpers/dattocli-here.ts';
import { dattocli } from '../helpers/daemon.ts';
import { exec } from '../helpers/exec.ts';
import { makeLoop } from '../helpers/loop.ts';
import { backUp, type TestImage } from '../helpers/vault-writer.ts';
import type { InitDocument, KeyListDocument } from '../../src/api/vault/output/keys.ts';
import type { PointsDocument } from '../../src/api/vault/output/points.ts';

const whole = { after };
const scratch = scratchFor(whole);
const state = join(scratch, 'state');
const vault = join(scratch, 'vault');
const at = ['--vault', `vault:${vault}`, '--state-dir', state, '--config', await configIn(scratch)];
const run = ['--run-dir', join(scratch, 'run')];
const size = 8 * MiB;
const image: TestImage = new Map([1, 2, 40].map((chunk) => [chunk, randomBytes(64 * KiB)]));
let point = '';
let key = '';

async function configIn(directory: string): Promise<string> {
  const path = join(directory, 'config.json');
  await writeFile(path, '{}');
  return path;
}

before(async () => {
  const made = await documentOf<InitDocument>(['vault', 'init', `vault:${vault}`, ...at.slice(2)]);
  key = made.key_file!;
  point = await addPoint();
});

async function addPoint(): Promise<string> {
  const context = { vaults: {}, stateDirectory: state };
  const opened = await openVault({ kind: 'directory', path: vault }, context);
  const index = ChunkIndex.open(opened.indexPath, opened.vault.id);
  try {
    return (await backUp(opened.vault, index, { image, size })).id;
  } finally {
    index.close();
    await opened.vault.store.close();
  }
}

/** Returns the digest of all files below the directory, and of their names. */
function digestOf(directory: string): string {
  const hash = createHash('sha256');
  for (const entry of readdirSync(directory, { recursive: true, withFileTypes: true }).sort((a, b) =>
    join(a.parentPath, a.name) < join(b.parentPath, b.name) ? -1 : 1,
  )) {
    const path = join(entry.parentPath, entry.name);
    hash.update(path);
    if (entry.isFile()) hash.update(readFileSync(path));
  }
  return hash.digest('hex');
}

/** Asserts that the vault and the keys of this machine are unchanged afterwards. */
async function unchanged(work: () => Promise<unknown>): Promise<void> {
  const places = [vault, join(state, 'vault-keys')];
  const was = places.map(digestOf);
  await work();
  assert.deepEqual(places.map(digestOf), was);
}

test('without the right key nothing is readable, and the error lists the keys', async () => {
  const wrong = join(scratch, 'wrong.key');
  await writeFile(wrong, `${randomBytes(32).toString('hex')}\n`, { mode: 0o600 });
  const nowhere = [...at.slice(0, 2), '--state-dir', join(scratch, 'nowhere')];
  const passphrase = join(scratch, 'passphrase');
  await writeFile(passphrase, 'guess\n', { mode: 0o600 });
  await unchanged(async () => {
    await refusedHere(['points', ...at, '--key-file', wrong], 'VAULT_WRONG_KEY');
    await refusedHere(['vault', 'info', ...at, '--key-file', wrong], 'VAULT_WRONG_KEY');
    await refusedHere(['points', ...nowhere], 'VAULT_NO_KEY');
    const { hint } = await refusedHere(['points', ...at, '--passphrase-file', passphrase], 'VAULT_NO_KEY');
    assert.match(hint!, /recovery code, key file|key file, recovery code/);
    await refusedHere(['points', ...at, '--key-file', join(scratch, 'none')], 'FILE_ERROR');
    await refusedHere(['points', ...at, '--key-file', passphrase], 'BAD_USAGE', 2);
    await refusedHere(['points', ...at, '--key-file', key, '--passphrase'], 'BAD_USAGE', 2);
  });
  const info = await dattocliHere(['vault', 'info', ...nowhere]);
  assert.equal(info.code, 0, info.err);
  assert.match(info.out, /^points +a key is needed to list them$/m);
});

test('no vault, not a vault, a second vault, a later version, a mistyped place', async () => {
  const rest = at.slice(2);
  const empty = join(scratch, 'empty');
  await mkdir(empty);
  await refusedHere(['points', '--vault', `vault:${empty}`, ...rest], 'VAULT_NOT_FOUND');
  await refusedHere(['points', '--vault', `vault:${scratch}/no/such`, ...rest], 'VAULT_NOT_FOUND');
  assert.deepEqual(await readdir(empty), []);
  await unchanged(async () => {
    await refusedHere(['vault', 'init', `vault:${vault}`, ...rest], 'VAULT_EXISTS');
  });
  const later = join(scratch, 'later');
  await cp(vault, later, { recursive: true });
  const config = JSON.parse(await readFile(join(later, 'vault.json'), 'utf8')) as object;
  await writeFile(join(later, 'vault.json'), JSON.stringify({ ...config, version: 2 }));
  const was = digestOf(later);
  for (const command of [['points'], ['vault', 'info'], ['vault', 'prune'], ['vault', 'check', '--repair']])
    await refusedHere([...command, '--vault', `vault:${later}`, ...rest], 'VAULT_TOO_NEW');
  assert.equal(digestOf(later), was);
  await refusedHere(['points', '--vault', vault, ...rest], 'BAD_TARGET', 2);
  await refusedHere(['points', '--vault', 'vault:offsite', ...rest], 'BAD_TARGET', 2);
});

test('a command whose result cannot be written fails, and vaults and keys are unchanged', async () => {
  const full = await open('/dev/full', 'w');
  try {
    const unwritten = async (...args: string[]): Promise<string> => {
      const { code, stderr } = await dattocli(args, undefined, { output: full.fd });
      assert.equal(code, 1, args.join(' '));
      assert.match(stderr, /could not be written to standard output: ENOSPC/, args.join(' '));
      return stderr;
    };
    for (const command of [
      ['points', ...at],
      ['vault', 'info', ...at, '--json'],
      ['verify', 'latest', ...at, ...run],
      ['--help'],
      ['vault', '--help'],
      ['--version'],
    ])
      await unwritten(...command);

    const lost = join(scratch, 'lost');
    const keys = digestOf(join(state, 'vault-keys'));
    for (const more of [[], ['--json'], ['--no-recovery-code']])
      assert.match(
        await unwritten('vault', 'init', `vault:${lost}`, ...more, ...at.slice(2)),
        /no vault was created/,
      );
    await refusedHere(['points', '--vault', `vault:${lost}`, ...at.slice(2)], 'VAULT_NOT_FOUND');
    assert.equal(digestOf(join(state, 'vault-keys')), keys, 'the key file of a vault that is not there');

    await unchanged(async () => {
      for (const more of [[], ['--json']])
        assert.match(
          await unwritten('vault', 'key', 'add', '--new-recovery-code', ...more, ...at),
          /the keys are unchanged/,
        );
    });
    // The reader has gone. Other results are not needed then, but a recovery code is.
    const gone = { output: { write: brokenPipe, sync: () => undefined } };
    assert.equal((await dattocliHere(['points', ...at], gone)).code, 0);
    const init = await dattocliHere(['vault', 'init', `vault:${lost}`, ...at.slice(2)], gone);
    assert.match(`${init.code} ${init.err}`, /^1 .*EPIPE.*no vault was created/);
    const made = await documentOf<InitDocument>(['vault', 'init', `vault:${lost}`, ...at.slice(2)]);
    // A recovery code that replaces itself: the old code still opens, whether or not it was removed before
    // the result was written.
    await writeFile(join(scratch, 'code'), made.recovery_code!, { mode: 0o600 });
    const by = ['--vault', `vault:${lost}`, ...at.slice(2), '--recovery-code-file', join(scratch, 'code')];
    for (const more of [[], ['--json']]) {
      await unwritten('vault', 'key', 'change', ...more, ...by);
      const { keys: left } = await documentOf<KeyListDocument>(['vault', 'key', 'list', ...by.slice(0, -2)]);
      assert.deepEqual(left.map(({ id }) => id).sort(), made.keys.map(({ id }) => id).sort());
      assert.equal((await dattocliHere(['points', ...by])).code, 0);
    }
  } finally {
    await full.close();
  }
});

function brokenPipe(): number {
  throw Object.assign(new Error('broken pipe'), { code: 'EPIPE' });
}

test('points that do not exist, and names that match none', async () => {
  await unchanged(async () => {
    for (const command of [
      ['restore', '--to', join(scratch, 'out')],
      ['verify'],
      ['forget'],
      ['diff', 'latest'],
    ]) {
      const [name = '', ...more] = command;
      await refusedHere([name, ...more, 'ffff0000', ...at], 'POINT_NOT_FOUND');
    }
    await refusedHere(['forget', 'abc', ...at], 'BAD_USAGE', 2);
    await refusedHere(['forget', ...at], 'BAD_USAGE', 2);
    await refusedHere(['forget', '--keep-daily', '0', ...at], 'BAD_USAGE', 2);
    await refusedHere(['mount', 'latest', join(scratch, 'm'), ...at, ...run], 'NOT_SUPPORTED', 2);
  });
});

test('destinations that are mounted, too small or in the vault are refused before anything is written', async (t) => {
  const mounted = await makeLoop(t, { size: 16 * MiB, filesystem: 'ext4', mount: true });
  const small = await makeLoop(t, { size: 4 * MiB });
  const was = [digestOf(mounted.mountPoint!), readFileSync(small.image)];
  const to = (where: string) => ['restore', point, '--to', where, ...at, ...run];
  await unchanged(async () => {
    await refusedHere(to(mounted.device), 'DEVICE_BUSY');
    await refusedHere([...to(mounted.device), '--force', mounted.device], 'DEVICE_BUSY');
    await refusedHere(to(small.device), 'TARGET_TOO_SMALL');
    await refusedHere(to('/dev/no-such'), 'DEVICE_NOT_FOUND');
    await refusedHere(to(join(vault, 'image')), 'SAME_DEVICE');
    await refusedHere(to('vault:other'), 'BAD_USAGE', 2);
  });
  assert.deepEqual([digestOf(mounted.mountPoint!), readFileSync(small.image)], was);
});

test('a read-only store serves readers, and reports the cause to writers', async (t) => {
  const disk = await makeLoop(t, { size: 48 * MiB, filesystem: 'ext4', mount: true });
  const inside = join(disk.mountPoint!, 'vault');
  await cp(vault, inside, { recursive: true });
  await exec('mount', ['-o', 'remount,ro', disk.mountPoint!]);
  const there = ['--vault', `vault:${inside}`, ...at.slice(2)];
  assert.equal((await documentOf<PointsDocument>(['points', ...there])).points[0]!.id, point);
  assert.equal((await dattocliHere(['restore', point, '--to', join(scratch, 'ro'), ...there])).code, 0);
  const verified = await documentOf<VerifyDocument>(['verify', point, ...there, ...run], 5);
  assert.deepEqual([verified.outcome, verified.kept], ['whole', false]);
  await refusedHere(['forget', point, ...there], 'VAULT_READ_ONLY');
  await refusedHere(['vault', 'prune', ...there], 'VAULT_READ_ONLY');
  await refusedHere(['vault', 'key', 'add', '--new-recovery-code', ...there], 'VAULT_READ_ONLY');
  const keys = readdirSync(join(state, 'vault-keys'));
  await refusedHere(['vault', 'init', `vault:${disk.mountPoint!}/second`, ...at.slice(2)], 'VAULT_READ_ONLY');
  assert.deepEqual(readdirSync(join(state, 'vault-keys')), keys);
});

test('a full store fails the job, and existing points stay whole', async (t) => {
  const store = await makeLoop(t, { size: 16 * MiB, filesystem: 'ext4', mount: true });
  const device = await makeLoop(t, { size: 24 * MiB });
  await exec('dd', ['if=/dev/urandom', `of=${device.device}`, 'bs=1M', 'count=2', 'oflag=direct']);
  const daemon = await daemonFor(t);
  // No target is given, and there is no default vault yet.
  const { hint } = await refused(
    daemon,
    ['startbackup', '--full', '--device', device.device],
    'VAULT_NOT_FOUND',
  );
  assert.match(hint!, /dattocli vault init/);
  const place = `vault:${store.mountPoint!}/vault`;
  const there = ['--state-dir', daemon.stateDirectory, '--config', daemon.config];
  await documentOf(['vault', 'init', place, '--pack-size', '1M', ...there]);
  const pair = ['--device', device.device, '--target', place];
  // Exit code 5: on a device without a filesystem everything is used.
  assert.equal((await backUpFor(daemon, pair)).code, 5);
  await exec('dd', ['if=/dev/urandom', `of=${device.device}`, 'bs=1M', 'count=24', 'oflag=direct']);
  const failed = await backUpFor(daemon, pair);
  assert.deepEqual([failed.code, failed.status.error?.code], [1, 'VAULT_FULL'], failed.stderr);
  const named = ['--vault', place, ...there];
  const { points } = await documentOf<PointsDocument>(['points', ...named]);
  assert.equal(points.length, 1);
  assert.equal((await dattocliHere(['vault', 'check', '--read-data', ...named])).code, 0);
  const pruned = await dattocliHere(['vault', 'prune', ...named]);
  assert.equal(pruned.code, 0, pruned.err);

  // Space that the prune has freed is available after a sync of the filesystem. Large writes leave the last
  // blocks free.
  await exec('sync', ['--file-system', store.mountPoint!]);
  for (const block of ['1M', '1k'])
    await exec('dd', ['if=/dev/zero', `of=${store.mountPoint!}/filler-${block}`, `bs=${block}`], {
      allow: [1],
    });
  const keys = readdirSync(join(daemon.stateDirectory, 'vault-keys'));
  await refusedHere(['vault', 'init', `vault:${store.mountPoint!}/second`, ...there], 'VAULT_FULL');
  assert.deepEqual(readdirSync(join(daemon.stateDirectory, 'vault-keys')), keys);
});

test('keys are added, changed and removed, and one always opens the vault', async () => {
  const rest = at;
  const passphrase = join(scratch, 'words');
  await writeFile(passphrase, 'correct horse\n', { mode: 0o600 });
  const added = await dattocliHere(
    ['vault', 'key', 'add', '--new-passphrase', '--label', 'office', ...rest],
    {
      answers: ['correct horse', 'correct horse'],
    },
  );
  assert.equal(added.code, 0, added.err);
  assert.equal((await dattocliHere(['points', '--passphrase-file', passphrase, ...rest])).code, 0);
  assert.equal(
    (await dattocliHere(['points', '--passphrase', ...rest], { answers: ['correct horse'] })).code,
    0,
  );
  const differ = await dattocliHere(['vault', 'key', 'add', '--new-passphrase', ...rest], {
    answers: ['a', 'b'],
  });
  assert.equal(differ.code, 2);

  const old = readFileSync(key, 'utf8');
  assert.equal((await dattocliHere(['vault', 'key', 'change', ...rest])).code, 0);
  assert.notEqual(readFileSync(key, 'utf8'), old);
  assert.equal(statSync(key).mode & 0o777, 0o600);
  assert.equal((await dattocliHere(['points', ...rest])).code, 0);
  await writeFile(join(scratch, 'old.key'), old, { mode: 0o600 });
  await refusedHere(['points', '--key-file', join(scratch, 'old.key'), ...rest], 'VAULT_WRONG_KEY');

  const { keys } = await documentOf<KeyListDocument>(['vault', 'key', 'list', ...at]);
  for (const { id, kind } of keys)
    if (kind !== 'file') assert.equal((await dattocliHere(['vault', 'key', 'remove', id, ...rest])).code, 0);
  const last = keys.find(({ kind }) => kind === 'file')!;
  await refusedHere(['vault', 'key', 'remove', last.id.slice(0, 8), ...rest], 'VAULT_LAST_KEY');
  await refusedHere(['vault', 'key', 'remove', 'nobody', ...rest], 'VAULT_NO_KEY');
});

test('Ctrl-C stops a restore cleanly with 4, and the same command resumes it', async () => {
  const target = join(scratch, 'cut');
  const command = ['restore', point, '--to', target, ...at];
  const cut = await dattocliHere(command, { interrupt: /restoring/ });
  assert.equal(cut.code, 4, cut.err);
  assert.match(cut.err, /^dattocli: Cancelled$/m);
  assert.ok(!(await readFile(target)).equals(deviceOf(image)), 'it was interrupted too late');
  assert.equal((await dattocliHere(command)).code, 0);
  assert.ok((await readFile(target)).equals(deviceOf(image)));
});

/** Returns all bytes of the device; zero if the image has no chunk. */
function deviceOf(chunks: TestImage): Buffer {
  const content = Buffer.alloc(size);
  for (const [chunk, data] of chunks) data.copy(content, chunk * 64 * KiB);
  return content;
}
