/**
 * A filesystem that hangs affects nothing but itself. Here it is a stopped ntfs-3g; an NFS server that is
 * down looks the same. The daemon still answers, lists the other devices, backs them up, refuses targets on
 * the filesystem in time, and stops when asked to.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import { backUpWell, daemonFor, scratchFor } from '../helpers/backup.ts';
import { atEnd, type EndingTest } from '../helpers/cleanup.ts';
import { dattocli, waitFor } from '../helpers/daemon.ts';
import { exec } from '../helpers/exec.ts';
import { makeLoop } from '../helpers/loop.ts';
import { otherVersion } from '../helpers/other-version.ts';

interface Hanging {
  readonly mountPoint: string;
  /** A loop device whose file lies on the hanging filesystem. */
  readonly loop: string;
  hang(): Promise<void>;
  resume(): void;
}

/** Makes an NTFS filesystem that is served by a process of the test, which can be stopped. */
async function makeHanging(t: EndingTest): Promise<Hanging> {
  const disk = await makeLoop(t, { size: 40 * MiB, filesystem: 'ntfs', mkfsArgs: ['-q', '-Q', '-F'] });
  const mountPoint = join(disk.directory, 'ntfs');
  await exec('mkdir', [mountPoint]);
  const server = spawn('ntfs-3g', ['-o', 'no_detach', disk.device, mountPoint], { stdio: 'ignore' });
  const ended = once(server, 'exit');
  atEnd(t, async () => {
    server.kill('SIGCONT');
    await exec('umount', [mountPoint], { allow: [32] });
    await ended;
  });
  const isMounted = async () => (await readFile('/proc/self/mountinfo', 'utf8')).includes(` ${mountPoint} `);
  await waitFor('the NTFS is mounted', 10_000, isMounted);
  await exec('truncate', ['--size=16M', join(mountPoint, 'disk.img')]);
  const loop = (await exec('losetup', ['--find', '--show', join(mountPoint, 'disk.img')])).stdout.trim();
  atEnd(t, async () => {
    server.kill('SIGCONT');
    await exec('losetup', ['--detach', loop]);
  });
  return {
    mountPoint,
    loop,
    hang: async () => {
      // This removal runs before all others, because they would wait for the filesystem.
      atEnd(t, () => void server.kill('SIGCONT'));
      // The device's first blocks must not be cached: a read of them has to reach the server.
      await exec('dd', [`if=${join(mountPoint, 'disk.img')}`, 'iflag=nocache', 'count=0', 'status=none']);
      server.kill('SIGSTOP');
      const state = async () => (await readFile(`/proc/${server.pid}/stat`, 'latin1')).replace(/^.*\) /s, '');
      await waitFor('ntfs-3g is stopped', 5000, async () => (await state()).startsWith('T'));
    },
    resume: () => void server.kill('SIGCONT'),
  };
}

/** Returns the result of `work` and the milliseconds that it took. */
async function timed<T>(work: Promise<T>): Promise<{ ms: number; result: T }> {
  const began = performance.now();
  const result = await work;
  return { ms: performance.now() - began, result };
}

/**
 * Returns a dattod that waits 12 s for the directory of a vault. The real one waits a minute, which is too
 * long for a test.
 */
function lessPatient(t: EndingTest): string {
  return otherVersion(t, '1.0.0', [
    { file: 'src/vault/store/directory.ts', from: 'ROOT_MS = 60_000', to: 'ROOT_MS = 12_000' },
  ]);
}

interface ListedDevice {
  readonly path: string;
  readonly backup: { readonly possible: boolean; readonly how: string };
}

test('a filesystem that hangs stops neither the daemon nor the backups of other devices', async (t) => {
  const hanging = await makeHanging(t);
  const well = await makeLoop(t, { size: 32 * MiB, filesystem: 'ext4', mount: true });
  const other = await makeLoop(t, { size: 8 * MiB });
  const scratch = scratchFor(t);
  const daemon = await daemonFor(t, { entry: lessPatient(t) });
  await hanging.hang();
  try {
    const start = (device: string, target: string) =>
      timed(dattocli(['startbackup', '--full', '--device', device, '--target', target], daemon));
    // A vault may lie on a disk that sleeps, so dattod waits longer for its directory. Everything else
    // continues in the meantime.
    const intoVault = start(other.device, `vault:${hanging.mountPoint}/vault`);
    const listings = Array.from({ length: 6 }, () => dattocli(['devices', '--json'], daemon));
    const version = await timed(dattocli(['version'], daemon));
    assert.equal(version.result.code, 0);
    assert.ok(version.ms < 5000, `"version" took ${version.ms} ms beside listings that wait for the hang`);
    for (const { code, stdout, stderr } of await Promise.all(listings)) {
      assert.equal(code, 0, stderr);
      const listed = JSON.parse(stdout) as ListedDevice[];
      assert.equal(listed.find((each) => each.path === well.device)?.backup.possible, true);
      const hung = listed.find((each) => each.path === hanging.loop)?.backup;
      assert.deepEqual(hung, { possible: false, how: 'the device does not answer' });
    }

    const image = join(scratch, 'well.img');
    await backUpWell(daemon, ['--device', well.device, '--target', image, '--verify', 'full']);

    const refusals: [what: string, device: string, target: string][] = [
      ['a device there', hanging.loop, join(scratch, 'hung.img')],
      ['an image there', well.device, join(hanging.mountPoint, 'new.img')],
      ['a path there', join(hanging.mountPoint, 'link'), join(scratch, 'x.img')],
    ];
    const refused = refusals.map(async ([what, device, target]) => {
      const { result, ms } = await start(device, target);
      assert.equal(result.code, 1, `${what}: ${result.stdout}${result.stderr}`);
      assert.match(result.stderr, /does not answer/, what);
      assert.ok(ms < 25_000, `${what} was refused after ${ms} ms`);
    });
    await Promise.all(refused);
    const { result, ms } = await intoVault;
    assert.match(result.stderr, /does not answer: .* longer than 12000 ms/);
    assert.ok(ms > 12_000 && ms < 37_000, `the vault was given up after ${ms} ms`);

    const ending = await timed(daemon.end());
    assert.ok(ending.ms < 20_000, `the daemon ended ${ending.ms} ms after SIGTERM`);
    assert.equal(daemon.child.exitCode, 0);
  } finally {
    // The files of the test can only be removed from a filesystem that answers.
    hanging.resume();
  }
});
