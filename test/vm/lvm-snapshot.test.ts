/**
 * Proves with device-mapper that a mounted logical volume without tracking is backed up from a temporary LVM
 * snapshot, of one instant, with a freeze of milliseconds. The snapshot is always removed. A snapshot that
 * overflowed is never a success. Remains of a killed process are removed.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { constants, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { defaultJobOptions, type JobEnvironment, type JobOptions } from '../../src/backup/job.ts';
import { prepareJob } from '../../src/backup/prepare/prepare-job.ts';
import type { BackupKind, JobStatus } from '../../src/api/job-status.ts';
import { MiB } from '../../src/base/bytes.ts';
import { silentLog } from '../../src/base/log.ts';
import { findDevice } from '../../src/devices/find.ts';
import { listDevices } from '../../src/devices/inventory.ts';
import { freezesNest } from '../../src/devices/lvm/room.ts';
import { removeLeftoverSnapshots } from '../../src/devices/lvm/snapshot.ts';
import { waitFor } from '../helpers/daemon.ts';
import { exec } from '../helpers/exec.ts';
import { assertSameUsed, assertWhole, type FilesystemName } from '../helpers/image-proof.ts';
import { vaultFor } from '../helpers/vault.ts';
import { sh } from './guest.ts';
import { makeVolume, ourVolumes, snapshotIsThere, useLvmWithoutUdev } from './volumes.ts';

useLvmWithoutUdev();
sh('for m in dm-mod dm-snapshot dm-thin-pool loop ext4 xfs; do modprobe $m; done');
sh('lvm vgcreate --yes vg /dev/vda /dev/vdb');
const release = sh('uname -r').trim();

/** The machine is emulated, and may have to share its processors. */
const patienceMs = 180_000;

/** Bytes per second of jobs that must not complete. */
const slowly = MiB / 8;

const scratch = '/tmp/lvm-snapshot';
const stateDirectory = join(scratch, 'state');
const runDirectory = '/run/lvm-snapshot';
for (const directory of [stateDirectory, runDirectory]) mkdirSync(directory, { recursive: true });
const environment: JobEnvironment = {
  log: silentLog(),
  holdWhileFrozen: [],
  stateDirectory,
  runDirectory,
  vaults: { vaults: {}, stateDirectory },
};

const hook = join(scratch, 'copy-snapshots');
/** Runs while the snapshots exist, and makes an independent copy of each. */
writeFileSync(
  hook,
  `#!/bin/sh
for each in /dev/mapper/vg-dattod*; do
  case $each in *-cow) ;; *) dd if=$each of=${scratch}/reference-$(echo $each | sed 's/.*-//') bs=1M iflag=direct conv=sparse status=none ;; esac
done
`,
  { mode: 0o755 },
);

/** The post-thaw hook needs a pre-freeze hook, because it undoes that hook's work. */
const withReference = { preFreezeHook: '/bin/true', postThawHook: hook };

after(() => {
  sh('umount -a -t ext4,xfs || true; lvm vgremove -ff -y vg || true');
});

async function backUp(
  kind: BackupKind,
  pairs: readonly { path: string; target: string }[],
  options: Partial<JobOptions> = {},
  during?: () => Promise<void>,
): Promise<JobStatus> {
  const devices = await listDevices();
  const found = [];
  for (const { path, target } of pairs) found.push({ device: await findDevice(devices, path), target });
  const prepared = await prepareJob(
    {
      uuid: randomUUID(),
      kind,
      pairs: found,
      devices,
      options: { ...defaultJobOptions, maxFreezeMs: 20_000, ...options },
    },
    environment,
  );
  const job = prepared.start();
  try {
    await during?.();
  } catch (error) {
    await job.cancel('the test failed').catch(() => undefined);
    throw error;
  }
  const status = await job.done;
  const left = readdirSync(join(stateDirectory, 'snapshots'));
  assert.deepEqual([ourVolumes(), left], [[], []], `left behind: ${JSON.stringify(status.error)}`);
  return status;
}

/**
 * Writes a number to a file of each directory, one after the other, each durable before the next. Also writes
 * random data.
 */
function startWriter(directories: readonly string[]) {
  let [stop, longest, rounds] = [false, 0, 0];
  const write = async (): Promise<void> => {
    for (let round = 1; !stop; round++) {
      for (const [index, directory] of directories.entries()) {
        const start = performance.now();
        // The file is never truncated: otherwise the instant may fall between, and the file be empty in the
        // image.
        const file = await open(join(directory, `number-${index}`), constants.O_WRONLY | constants.O_CREAT);
        await file.write(String(round).padStart(12, '0'));
        await file.sync();
        await file.close();
        longest = Math.max(longest, performance.now() - start);
      }
      const file = await open(join(directories[0]!, `data-${round % 20}`), 'w');
      await file.write(Buffer.alloc(64 * 1024, `round ${round} `));
      await file.close();
      rounds = round;
      await sleep(1);
    }
  };
  const written = write();
  return {
    written: () => rounds,
    end: async () => {
      stop = true;
      await written;
      return { rounds, longest: Math.round(longest) };
    },
  };
}

/** Writes random bytes, durably, while the job continues in this process. */
async function write(arguments_: string): Promise<void> {
  await exec('dd', ['if=/dev/urandom', ...arguments_.split(' '), 'conv=notrunc,fsync', 'status=none']);
}

async function assertRight(type: FilesystemName, image: string, size: number, number = 0): Promise<void> {
  await assertWhole(type, image, 'frozen');
  await assertSameUsed(type, join(scratch, `reference-${number}`), image, size);
}

/** Mounts images read-only and reads the numbers in them. */
function numbersIn(images: readonly { image: string; type: FilesystemName }[]): number[] {
  return images.map(({ image, type }, index) => {
    const options = type === 'xfs' ? 'ro,norecovery,nouuid' : 'ro,noload';
    const text = sh(
      `mkdir -p /look; mount -o loop,${options} ${image} /look; cat /look/number-${index}; umount /look`,
    );
    return Number(text);
  });
}

const kinds = [
  { name: 'thick', how: '-L 96M vg', type: 'ext4', size: 96 * MiB },
  { name: 'thin', how: '-V 320M --thinpool pool vg', type: 'xfs', size: 320 * MiB },
] as const;
const poolMebibytes = 160;
sh(`lvm lvcreate --yes --zero n --type thin-pool -L ${poolMebibytes}M -n pool vg`);
const paths = kinds.map(({ name, how, type }) => {
  const path = makeVolume(name, how, type);
  sh(`dd if=/dev/urandom of=/${name}/static bs=1M count=16 status=none; sync`);
  return path;
});

for (const [index, { name, type, size }] of kinds.entries())
  test(`${type} on a ${name} volume under load: a full and a differential, each of one instant`, async () => {
    const path = paths[index]!;
    const image = join(scratch, `${name}.img`);
    const writer = startWriter([`/${name}`]);
    try {
      await waitFor('the writer writes', patienceMs, () => writer.written() > 3);
      for (const kind of ['full', 'incremental'] as const) {
        const before = writer.written();
        const status = await backUp(kind, [{ path, target: image }], withReference);
        const device = status.devices[0]!;
        const { snapshot } = device;
        console.log(
          `# ${kind} of ${type} on ${name}: suspended ${device.freeze_ms ?? -1} ms, ${device.bytes_sent} bytes sent, ` +
            `${snapshot?.used ?? -1} of ${snapshot?.size ?? -1} bytes used`,
        );
        assert.deepEqual([status.state, status.error], ['SUCCEEDED', null]);
        assert.equal(device.kind, kind === 'full' ? 'full' : 'differential');
        assert.deepEqual([snapshot?.kind, device.tracker], [name, 'none']);
        assert.ok((device.freeze_ms ?? 0) < 1000, `frozen for ${device.freeze_ms ?? 0} ms`);
        const codes = status.warnings.map((warning) => warning.code);
        assert.deepEqual(codes, kind === 'full' ? [] : ['FELL_BACK']);
        await assertRight(type, image, size);
        const [number = 0] = numbersIn([{ image, type }]);
        assert.ok(number >= before && number <= writer.written(), `${number} after ${before}`);
      }
    } finally {
      const { rounds, longest } = await writer.end();
      console.log(`# the writer: ${rounds} rounds, the longest wait ${longest} ms`);
    }
  });

test('into a vault: the point records that its instant is that of a snapshot', async (t) => {
  const vault = await vaultFor(t, stateDirectory);
  const writer = startWriter(['/thick']);
  try {
    const status = await backUp('full', [{ path: paths[0]!, target: vault.target }], withReference);
    assert.deepEqual([status.state, status.error, status.devices[0]?.tracker], ['SUCCEEDED', null, 'none']);
  } finally {
    await writer.end();
  }
  const [point] = await vault.points();
  const device = point!.devices[0]!;
  assert.deepEqual([point!.devices.length, device.consistency, device.path], [1, 'snapshot', paths[0]]);
  const image = join(scratch, 'from-vault.img');
  await vault.dump(device, image);
  await assertRight('ext4', image, device.size);
  rmSync(image);
});

test('two volumes: one instant if freezes can be nested, otherwise no snapshot and a reason', async () => {
  if (!freezesNest(release)) {
    const other = makeVolume('other', '-L 32M vg', 'ext4');
    const pairs = [paths[0]!, other].map((path, index) => ({
      path,
      target: join(scratch, `no-${index}.img`),
    }));
    await assert.rejects(backUp('full', pairs, { maxFreezeMs: 1 }), (error: Error & { hint?: string }) => {
      assert.match(error.hint ?? '', /no LVM snapshot was taken: before Linux 6\.8/);
      return true;
    });
    sh('umount /other; lvm lvremove --yes vg/other');
    return;
  }
  const pairs = kinds.map(({ name }, index) => ({
    path: paths[index]!,
    target: join(scratch, `both-${name}.img`),
  }));
  const writer = startWriter(['/thick', '/thin']);
  try {
    const status = await backUp('full', pairs, withReference);
    assert.deepEqual([status.state, status.error, status.warnings], ['SUCCEEDED', null, []]);
    for (const [index, { type, size }] of kinds.entries())
      await assertRight(type, pairs[index]!.target, size, index);
    const [first = 0, second = 0] = numbersIn(
      kinds.map(({ type }, index) => ({ image: pairs[index]!.target, type })),
    );
    console.log(`# frozen for ${status.devices.map((each) => each.freeze_ms).join(' and ')} ms`);
    assert.ok(first === second || first === second + 1, `${first} and ${second}`);
  } finally {
    await writer.end();
  }
});

test('without space, or with snapshots turned off, the reason is in the refusal', async () => {
  const pair = [{ path: paths[0]!, target: join(scratch, 'refused.img') }];
  const refusal = async (options: Partial<JobOptions>): Promise<string> => {
    try {
      await backUp('full', pair, { maxFreezeMs: 1, ...options });
    } catch (error) {
      return (error as { hint?: string }).hint ?? '';
    }
    return 'nothing was refused';
  };
  assert.match(
    await refusal({ snapshotSize: 90 * MiB, snapshot: 'never' }),
    /or back up an LVM snapshot of it/,
  );
  sh('lvm lvcreate --yes --wipesignatures n -Zn -n filler -l 100%FREE vg');
  assert.match(await refusal({}), /the volume group vg has 0 B free, and a snapshot of vg\/thick needs/);
  sh('lvm lvremove --yes vg/filler');
});

test('a thick snapshot that overflows fails the job, with every read-error option', async () => {
  const target = join(scratch, 'overflow.img');
  for (const onReadError of ['fail', 'zero'] as const) {
    const status = await backUp(
      'full',
      [{ path: paths[0]!, target }],
      { snapshotSize: 8 * MiB, rate: slowly, onReadError },
      async () => {
        await waitFor('the snapshot is there', patienceMs, snapshotIsThere);
        await write('of=/thick/much bs=1M count=20');
      },
    );
    console.log(`# ${status.error?.message ?? ''}`);
    assert.deepEqual([status.state, status.error?.code], ['FAILED', 'SNAPSHOT_OVERFLOW']);
    assert.match(status.error?.message ?? '', /\d \w+ of 8\.00 MiB were in use/);
    rmSync('/thick/much');
  }
  sh('touch /thick/alive; sync');
});

test('a thin pool that fills up fails the job while the volume still works', async () => {
  const target = join(scratch, 'pool.img');
  const status = await backUp('full', [{ path: paths[1]!, target }], { rate: slowly }, async () => {
    await waitFor('the snapshot is there', patienceMs, snapshotIsThere);
    // Writes nearly everything that the pool has left, then more bit by bit. The pool must not become full.
    const percent = Number(sh('lvm lvs --noheadings -o data_percent vg/pool'));
    const bulk = Math.floor((0.95 - percent / 100) * poolMebibytes * 2);
    await write(`of=/thin/much bs=512K count=${bulk}`);
    for (let part = bulk; snapshotIsThere() && part < bulk + 20; part++) {
      await write(`of=/thin/much bs=512K count=1 seek=${part}`);
      await sleep(500);
    }
  });
  console.log(`# ${status.error?.message ?? ''}`);
  assert.deepEqual([status.state, status.error?.code], ['FAILED', 'SNAPSHOT_OVERFLOW']);
  rmSync('/thin/much');
  sh('fstrim /thin; touch /thin/alive; sync; dmsetup status vg-pool-tpool | grep -w rw');
});

test('a cancelled job leaves no snapshot', async () => {
  const devices = await listDevices();
  const prepared = await prepareJob(
    {
      uuid: randomUUID(),
      kind: 'full',
      pairs: [{ device: await findDevice(devices, paths[0]!), target: join(scratch, 'cancelled.img') }],
      devices,
      options: { ...defaultJobOptions, rate: slowly },
    },
    environment,
  );
  const job = prepared.start();
  try {
    await waitFor('the snapshot is there', patienceMs, snapshotIsThere);
  } finally {
    await job.cancel('enough');
  }
  assert.equal((await job.done).state, 'CANCELLED');
  assert.deepEqual([ourVolumes(), readdirSync(join(stateDirectory, 'snapshots'))], [[], []]);
});

test('remains of a killed process are removed by the next one, and nothing else', async () => {
  sh('lvm lvcreate --yes --snapshot --name theirs --addtag dattod -L 8M vg/thick');
  const script = join(import.meta.dirname, 'lvm-snapshot-job.ts');
  const target = join(scratch, 'killed.img');
  const args = [script, paths[1]!, target, stateDirectory, runDirectory, String(slowly)];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  const exited = new Promise((resolve) => child.once('exit', resolve));
  await waitFor('the snapshot is there', patienceMs, snapshotIsThere);
  child.kill('SIGKILL');
  await exited;
  assert.equal(ourVolumes().length, 2, 'the snapshot outlives its process');
  const removed = await removeLeftoverSnapshots(stateDirectory, silentLog());
  assert.match(removed.join(' '), /^vg\/dattod-[0-9a-f-]{36}-0$/);
  assert.deepEqual(readdirSync(join(stateDirectory, 'snapshots')), []);
  assert.match(ourVolumes().join(' '), /^theirs/);
  sh('lvm lvremove --yes vg/theirs');
  assert.deepEqual(await removeLeftoverSnapshots(stateDirectory, silentLog()), []);
});
