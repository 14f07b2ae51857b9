/**
 * Proves that the real daemon and engine answer bad input by a one-line error with the next step and the
 * right exit code. Afterwards nothing is changed, frozen, held or running.
 */
import assert from 'node:assert/strict';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import { assertNothingLeft, daemonFor } from '../helpers/backup.ts';
import { atEnd, type EndingTest } from '../helpers/cleanup.ts';
import { dattocli, type ProgramResult, type TestDaemon } from '../helpers/daemon.ts';
import { exec } from '../helpers/exec.ts';
import { makeLoop, attachLoop, detachLoop } from '../helpers/loop.ts';
import { startNbdkit } from '../helpers/nbdkit.ts';

async function nbdkit(t: EndingTest, ...parameters: string[]): Promise<string> {
  const server = await startNbdkit(parameters);
  atEnd(t, async () => {
    await server.stop();
  });
  return server.uri;
}

function assertRefused({ code, stdout, stderr }: ProgramResult, exitCode: number, message: RegExp): void {
  assert.equal(code, exitCode, stderr);
  assert.match(stderr, message);
  assert.match(stderr, /^dattocli: [^\n]+ \([^\n]+\)\n$/, 'one line with the next step');
  assert.equal(stdout, '');
}

async function assertNoTrace(daemon: TestDaemon, device: string, mountPoint: string): Promise<void> {
  assert.equal((await dattocli(['jobs', '--json'], daemon)).stdout, '[]\n');
  await assertNothingLeft(daemon, { devices: [device], mountPoints: [mountPoint] });
}

test('refused before anything is started', async (t) => {
  const disk = await makeLoop(t, {
    size: 64 * MiB,
    filesystem: 'ext4',
    mount: true,
    mkfsArgs: ['-L', 'refused'],
  });
  const twin = await makeLoop(t, { size: 64 * MiB, filesystem: 'ext4', mkfsArgs: ['-L', 'refused'] });
  const small = await nbdkit(t, 'memory', '63M');
  const readOnly = await nbdkit(t, '-r', 'memory', '64M');
  const good = await nbdkit(t, 'memory', '64M');
  const daemon = await daemonFor(t);
  const uuid = (await exec('blkid', ['-p', '-o', 'value', '-s', 'UUID', disk.device])).stdout.trim();
  const inside = join(disk.mountPoint!, 'image');
  writeFileSync(join(disk.directory, 'text'), 'no directory');

  const cases: [string, string, number, RegExp][] = [
    ['0d6b3cf5-0000-4000-8000-000000000000', good, 1, /Unable to find block device for UUID 0d6b3cf5-/],
    [
      '/dev/no-such-device',
      good,
      1,
      /Unable to find block device for \/dev\/no-such-device: there is no such path/,
    ],
    [disk.image, good, 1, /neither a block device nor a mount point/],
    ['LABEL=refused', good, 1, new RegExp(`names 2 block devices: .*${twin.device}`)],
    [uuid, 'nbd+unix:///?socket=/no/such/socket', 1, /\/no\/such\/socket/],
    [uuid, 'nbd://127.0.0.1:9/', 1, /ECONNREFUSED/],
    [uuid, small, 1, /66060288.*67108864|67108864.*66060288/],
    [uuid, readOnly, 1, /read-only/],
    [uuid, disk.device, 1, /Refusing to synchronize a device with itself/],
    [uuid, inside, 1, /Refusing to synchronize a device with itself/],
    [
      uuid,
      `${disk.directory}/text/image`,
      1,
      /text\/image cannot be opened: there is no such file or directory/,
    ],
    [uuid, 'ftp://h/x', 2, /ftp/],
    [uuid, 'nbd://h:99999/', 2, /99999/],
  ];
  for (const [device, target, exitCode, message] of cases) {
    const result = await dattocli(['startbackup', '-f', '--device', device, '--target', target], daemon);
    assertRefused(result, exitCode, message);
  }
  assert.equal(existsSync(inside), false, 'no image was made on the source');
  await assertNoTrace(daemon, disk.device, disk.mountPoint!);
});

test('a loop device on the source counts as the source too', async (t) => {
  const disk = await makeLoop(t, { size: 64 * MiB, filesystem: 'ext4', mount: true });
  const file = join(disk.mountPoint!, 'file');
  await exec('truncate', ['--size=80M', file]);
  const loop = await attachLoop(file);
  atEnd(t, () => detachLoop(loop));
  const daemon = await daemonFor(t);
  const result = await dattocli(['startbackup', '-f', '--device', disk.device, '--target', loop], daemon);
  assertRefused(result, 1, /Refusing to synchronize a device with itself/);
  await assertNoTrace(daemon, disk.device, disk.mountPoint!);
});

test('a freeze that would be too long is refused with the number and the alternatives', async (t) => {
  const disk = await makeLoop(t, { size: 256 * MiB, filesystem: 'ext4', mount: true });
  await exec('dd', ['if=/dev/urandom', `of=${disk.mountPoint!}/data`, 'bs=1M', 'count=150', 'status=none']);
  const target = await nbdkit(t, 'memory', '256M');
  const daemon = await daemonFor(t);
  const args = ['startbackup', '-f', '--device', disk.device, '--target', target, '--max-freeze', '1ms'];
  assertRefused(
    await dattocli(args, daemon),
    1,
    /would be frozen for about .* allowed are 1 ms \(allow it with --max-freeze /,
  );
  const json = await dattocli([...args, '--json'], daemon);
  assert.equal((JSON.parse(json.stderr) as { code: string }).code, 'FREEZE_TOO_LONG');
  await assertNoTrace(daemon, disk.device, disk.mountPoint!);
});
