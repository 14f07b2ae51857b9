/**
 * Proves that each place of the agent may be full. Every program that needs room there exits with the path,
 * ENOSPC and the next step, leaves nothing half done, and works as soon as there is room.
 *
 * Each place is a small tmpfs of its own. The state directory has its own test (state-directory), and so has
 * a vault that makes room by a prune (vault-full).
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import type { ErrorDocument } from '../../src/base/errors.ts';
import type { JobStatus } from '../../src/api/job-status.ts';
import { backUpWell, daemonFor, scratchFor, scriptIn, type KindFlag } from '../helpers/backup.ts';
import { atEnd, type EndingTest } from '../helpers/cleanup.ts';
import { daemonPaths, dattocli, runProgram } from '../helpers/daemon.ts';
import { dattocliHere } from '../helpers/dattocli-here.ts';
import { exec } from '../helpers/exec.ts';
import { assertSameUsed, assertWhole } from '../helpers/image-proof.ts';
import { makeLoop, unmount } from '../helpers/loop.ts';
import { vaultFor } from '../helpers/vault.ts';

const size = 16 * MiB;

/** Mounts a tmpfs of 24 MiB on a new directory. */
async function placeFor(t: EndingTest, parent: string, name: string): Promise<string> {
  const path = join(parent, name);
  mkdirSync(path);
  await exec('mount', ['-t', 'tmpfs', '-o', 'size=24M,mode=700', 'no-room', path]);
  atEnd(t, () => unmount(path));
  return path;
}

/** Runs `work` while the place is completely full. */
async function whileFull<T>(place: string, work: () => Promise<T>): Promise<T> {
  const filler = join(place, 'filler');
  for (const options of [['bs=64k'], ['bs=1', 'oflag=append', 'conv=notrunc', 'count=8192']])
    await exec('dd', ['if=/dev/zero', `of=${filler}`, ...options, 'status=none'], { allow: [1] });
  try {
    return await work();
  } finally {
    rmSync(filler);
  }
}

/** Returns the names below the directory, without the file that fills it. */
const namesIn = (directory: string): string[] =>
  (readdirSync(directory, { recursive: true }) as string[]).filter((name) => name !== 'filler').sort();

test('no room in one of its places: the error names path and next step, and the next run is right', async (t) => {
  const scratch = scratchFor(t);
  const place: Record<string, string> = {};
  for (const name of ['run', 'log', 'target', 'vault', 'client', 'pid', 'temporary'])
    place[name] = await placeFor(t, scratch, name);
  const at = (name: string, ...rest: string[]): string => join(place[name]!, ...rest);
  const places = daemonPaths();
  const daemonArguments = [
    ...['--run-dir', at('run'), '--log-file', at('log', 'log')],
    ...['--state-dir', places.stateDirectory],
  ];
  const daemon = await daemonFor(t, {
    paths: { ...places, runDirectory: at('run'), logFile: at('log', 'log') },
    arguments: daemonArguments,
    environment: { TMPDIR: at('temporary') },
  });
  const vault = await vaultFor(t, places.stateDirectory, { parent: at('vault'), packSize: MiB });
  const disk = await makeLoop(t, { size, filesystem: 'ext4', mount: true });
  const mountPoint = disk.mountPoint!;
  writeFileSync(join(mountPoint, 'first'), randomBytes(3 * MiB), { flush: true });

  const image = at('target', 'image');
  const reference = join(scratch, 'reference');
  const copy = await scriptIn(scratch, 'copy', [
    `dd if=${disk.device} of=${reference} bs=1M iflag=direct status=none`,
  ]);
  const to = (target: string): string[] => ['--device', disk.device, '--target', target];
  const backUp = (target: string, kind: KindFlag) =>
    backUpWell(daemon, [...to(target), '--frozen-hook', copy, '--max-freeze', '20s'], kind);
  /** Returns the error of the job that fails or refuses its start. */
  const failing = async (target: string, kind: KindFlag): Promise<ErrorDocument> => {
    const args = ['startbackup', kind, '--wait', '--json', ...to(target)];
    const { code, stdout, stderr } = await dattocli(args, daemon);
    assert.equal(code, 1, stdout);
    return stdout === '' ? (JSON.parse(stderr) as ErrorDocument) : (JSON.parse(stdout) as JobStatus).error!;
  };
  /** Returns the error of a vault command. */
  const refusing = async (...args: string[]): Promise<ErrorDocument> => {
    const { code, out, err } = await dattocliHere([...args, '--json']);
    assert.equal(code, 1, `${args.join(' ')}: ${out}`);
    return JSON.parse(err) as ErrorDocument;
  };
  const well = async (...args: string[]): Promise<void> => {
    const { code, err } = await dattocliHere(args);
    assert.equal(code, 0, `${args.join(' ')}: ${err}`);
  };
  const known = (error: ErrorDocument, code: ErrorDocument['code'], path: string, said = /ENOSPC/): void => {
    assert.equal(error.code, code, JSON.stringify(error));
    assert.ok(error.message.includes(path), `${error.message} does not name ${path}`);
    assert.match(error.message, said);
    assert.match(error.hint ?? '', /make room|needs room|needs free space/);
  };
  const change = (name: string): void =>
    writeFileSync(join(mountPoint, name), randomBytes(MiB), { flush: true });

  await backUp(image, '--full');
  await backUp(vault.target, '--full');

  await whileFull(at('run'), async () => {
    known(await failing(image, '--incremental'), 'FILE_ERROR', at('run', 'freeze-'));
    assert.deepEqual(namesIn(at('run')), []);
  });
  await whileFull(at('log'), () => whileFull(at('temporary'), () => backUp(image, '--differential')));
  change('second');
  await whileFull(at('target'), async () => {
    known(await failing(image, '--differential'), 'TARGET_FULL', image);
  });
  await whileFull(at('vault'), async () => {
    known(await failing(vault.target, '--differential'), 'VAULT_FULL', vault.directory);
  });
  change('third');
  await backUp(image, '--differential');
  await assertSameUsed('ext4', reference, image, size);
  await assertWhole('ext4', image, 'frozen');
  await backUp(vault.target, '--differential');
  const log = readFileSync(at('log', 'log'), 'utf8').trimEnd().split('\n');
  assert.deepEqual(log.filter((line) => !isLogLine(line)).length <= 1, true, log.join('\n'));

  // These commands work without the daemon: keys from its state directory, an index of their own.
  const keys = ['--vault', vault.target, '--state-dir', places.stateDirectory];
  const restored = at('target', 'restored');
  rmSync(image);
  await whileFull(at('target'), async () => {
    known(await refusing('restore', 'latest', '--to', restored, ...keys), 'TARGET_FULL', restored);
    const files = at('target', 'files');
    const error = await refusing('restore', 'latest', '--files', 'third', '--to', files, ...keys);
    known(error, 'FILE_ERROR', files, /No space left on device/);
    assert.deepEqual(namesIn(files), []);
  });
  await well('restore', 'latest', '--to', restored, ...keys);
  await assertSameUsed('ext4', reference, restored, size);
  await well('vault', 'check', ...keys);

  const point = join(scratch, 'point');
  const runs = ['--run-dir', at('run')];
  await whileFull(at('run'), async () => {
    known(await refusing('mount', 'latest', point, ...keys, ...runs), 'FILE_ERROR', at('run', 'mounts'));
    assert.deepEqual(namesIn(at('run', 'mounts')), []);
  });
  const commands = [
    ['vault', 'check'],
    ['vault', 'prune'],
    ['restore', 'latest', '--to', restored],
  ];
  // A separate state directory, which lacks first the record of the vault's location, then the vault's index.
  await exec('cp', ['-a', join(places.stateDirectory, 'vault-keys'), at('client')]);
  const client = ['--vault', vault.target, '--state-dir', at('client')];
  await whileFull(at('client'), async () => {
    for (const args of commands)
      known(await refusing(...args, ...client), 'FILE_ERROR', at('client', 'vault-places'));
  });
  await exec('cp', ['-a', join(places.stateDirectory, 'vault-places'), at('client')]);
  await whileFull(at('client'), async () => {
    for (const args of commands)
      known(await refusing(...args, ...client), 'FILE_ERROR', at('client', 'vaults'), /index/);
  });
  await well('vault', 'prune', ...client);

  const init = (stateDirectory: string, directory: string): string[] => [
    ...['vault', 'init', '--state-dir', stateDirectory, '--vault', `vault:${directory}`],
  ];
  const [elsewhere, inside] = [join(scratch, 'elsewhere'), at('client', 'vault')];
  await whileFull(at('client'), async () => {
    known(await refusing(...init(at('client'), elsewhere)), 'FILE_ERROR', at('client', 'vault-keys'));
    known(await refusing(...init(scratch, inside)), 'VAULT_FULL', inside);
  });
  await well(...init(at('client'), elsewhere));
  await well(...init(scratch, inside));

  await daemon.end();
  await whileFull(at('pid'), async () => {
    const start = await runProgram('src/bin/dattod.ts', [
      ...['--foreground', ...places.arguments, ...daemonArguments, '--pid-file', at('pid', 'pid')],
    ]);
    assert.equal(start.code, 1);
    assert.match(
      start.stderr,
      new RegExp(`The pid file ${at('pid', 'pid')} cannot be written: ENOSPC \\(make room`),
    );
    assert.equal(existsSync(at('pid', 'pid')), false);
  });
});

/** Returns true for a whole JSON document. A line that the full disk cut off is not one. */
function isLogLine(line: string): boolean {
  try {
    JSON.parse(line);
    return true;
  } catch {
    return false;
  }
}
