/**
 * Proves that volumes which an interrupted lvcreate left suspended are resumed by the next daemon. Writers
 * wait until then and continue after it, and nothing of the snapshot stays.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { silentLog } from '../../src/base/log.ts';
import { snapshotName, snapshotsDirectory, writeRecord } from '../../src/devices/lvm/records.ts';
import { removeLeftoverSnapshots } from '../../src/devices/lvm/snapshot.ts';
import { listVolumes } from '../../src/devices/lvm/volumes.ts';
import { waitFor } from '../helpers/daemon.ts';
import { sh } from './guest.ts';
import { makeVolume, ourVolumes, useLvmWithoutUdev } from './volumes.ts';

useLvmWithoutUdev();
sh('for m in dm-mod dm-snapshot dm-thin-pool ext4 xfs; do modprobe $m; done');
sh('lvm vgcreate --yes vg /dev/vda /dev/vdb');
sh('lvm lvcreate --yes --zero n --type thin-pool -L 160M -n pool vg');
const volumes = {
  thick: volumeOf('ours', '-L 64M vg', 'ext4'),
  thin: volumeOf('thin', '-V 320M --thinpool pool vg', 'xfs'),
};
after(() => {
  sh(
    'for v in ours thin; do dmsetup resume --noudevsync vg-$v; done; umount /ours /thin; lvm vgremove -ff -y vg || true',
  );
});

const stateDirectory = '/tmp/lvm-suspended';
mkdirSync(stateDirectory);
const patienceMs = 180_000;
/** Number of tries to hit the milliseconds in which lvcreate has the volume suspended. */
const mostTries = 60;
const wantedHits = 4;

interface MountedVolume {
  readonly name: string;
  readonly isSuspended: () => boolean;
}

function volumeOf(name: string, how: string, type: 'ext4' | 'xfs'): MountedVolume {
  makeVolume(name, how, type);
  const minor = sh(`dmsetup info --columns --noheadings -o minor vg-${name}`).trim();
  const path = `/sys/block/dm-${minor}/dm/suspended`;
  return { name, isSuspended: () => readFileSync(path, 'latin1').trim() === '1' };
}

/** Leaves the record of a job that was killed some time ago. */
async function leaveRecord({ name: origin }: MountedVolume): Promise<string> {
  const volume = (await listVolumes()).find(({ name }) => name === origin);
  const name = snapshotName(randomUUID(), 0);
  const { group, groupUuid } = volume!;
  const record = { version: 1 as const, name, origin, group, groupUuid, job: randomUUID() };
  await writeRecord(snapshotsDirectory(stateDirectory), { ...record, at: Date.now() - 600_000 });
  return name;
}

/** Starts a process that writes to the filesystem and blocks there. */
async function blockedWriter({ name }: MountedVolume, round: string): Promise<{ done: () => Promise<void> }> {
  const child = spawn('sh', ['-c', `echo written >/${name}/${round}; sync -f /${name}`], { stdio: 'ignore' });
  const exited = once(child, 'exit');
  const state = (): string => {
    const text = readFileSync(`/proc/${child.pid!}/stat`, 'latin1');
    return text.slice(text.lastIndexOf(')') + 2)[0] ?? '';
  };
  await waitFor('the writer waits', patienceMs, () => {
    assert.equal(child.exitCode, null, 'the write went through: the volume is not suspended');
    return state() === 'D';
  });
  return {
    done: async () => {
      const late = sleep(patienceMs, 'late' as const, { ref: false });
      assert.notEqual(await Promise.race([exited, late]), 'late', 'the writer waits still');
      assert.equal(child.exitCode, 0);
      assert.equal(readFileSync(`/${name}/${round}`, 'utf8'), 'written\n');
    },
  };
}

async function assertNothingLeft({ name, isSuspended }: MountedVolume): Promise<void> {
  assert.deepEqual([ourVolumes(), readdirSync(snapshotsDirectory(stateDirectory))], [[], []]);
  assert.equal(isSuspended(), false);
  assert.deepEqual(
    sh('dmsetup ls')
      .split('\n')
      .filter((line) => /dattod|real/.test(line)),
    [],
  );
  sh(`touch /${name}/alive; sync -f /${name}; fsfreeze -f /${name}; fsfreeze -u /${name}`);
  assert.deepEqual(await removeLeftoverSnapshots(stateDirectory, silentLog()), []);
}

test('a suspended volume, and the record of a snapshot of it: resumed, and writes continue', async () => {
  const { thick } = volumes;
  await leaveRecord(thick);
  sh('dmsetup suspend --noudevsync vg-ours');
  const writer = await blockedWriter(thick, 'by-hand');
  assert.deepEqual(await removeLeftoverSnapshots(stateDirectory, silentLog()), []);
  await writer.done();
  await assertNothingLeft(thick);
});

test('without a record of ours nothing is resumed', async () => {
  sh('dmsetup suspend --noudevsync vg-ours');
  const writer = await blockedWriter(volumes.thick, 'no-record');
  assert.deepEqual(await removeLeftoverSnapshots(stateDirectory, silentLog()), []);
  assert.equal(volumes.thick.isSuspended(), true);
  sh('dmsetup resume --noudevsync vg-ours');
  await writer.done();
});

test('a volume that a running LVM command has suspended is left alone', async () => {
  const { thick } = volumes;
  await leaveRecord(thick);
  // Such a command holds the lock of its group, like this process.
  const holder = spawn('flock', ['--exclusive', '/run/lock/lvm/V_vg', 'sh', '-c', 'echo held; read end'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  await once(holder.stdout, 'data');
  sh('dmsetup suspend --noudevsync vg-ours');
  const writer = await blockedWriter(thick, 'locked');
  let over = false;
  const removing = removeLeftoverSnapshots(stateDirectory, silentLog()).finally(() => (over = true));
  await waitFor('the lock is waited for', patienceMs, () => lockIsWaitedFor());
  await sleep(2000);
  assert.deepEqual([over, thick.isSuspended()], [false, true]);
  holder.stdin.end('end\n');
  await removing;
  await writer.done();
  await assertNothingLeft(thick);
});

/** Returns true if a process of LVM waits for the group's lock. */
function lockIsWaitedFor(): boolean {
  return /^\d+: -> FLOCK/m.test(readFileSync('/proc/locks', 'latin1'));
}

const kinds = { thick: ['-L', '16M'], thin: ['--setactivationskip', 'n'] } as const;

for (const kind of ['thick', 'thin'] as const)
  test(`lvcreate of a ${kind} snapshot is killed while the volume is suspended: resumed, and nothing of it stays`, async () => {
    const volume = volumes[kind];
    for (let tries = 1, hits = 0; hits < wantedHits; tries++) {
      assert.ok(tries <= mostTries, `${mostTries} calls of lvcreate were killed, ${hits} in time`);
      const name = await leaveRecord(volume);
      const args = ['--yes', '--snapshot', '--name', name, '--addtag', 'dattod', ...kinds[kind]];
      const child = spawn('lvm', ['lvcreate', ...args, `vg/${volume.name}`], { stdio: 'ignore' });
      const exited = once(child, 'exit');
      while (!volume.isSuspended() && child.exitCode === null) await new Promise(setImmediate);
      // The delay differs, so that lvcreate is not always at the same step.
      const begun = performance.now();
      while (volume.isSuspended() && performance.now() - begun < (tries % 4) * 8)
        await new Promise(setImmediate);
      child.kill('SIGKILL');
      await exited;
      if (!volume.isSuspended()) {
        await removeLeftoverSnapshots(stateDirectory, silentLog());
        continue;
      }
      hits++;
      console.log(`# ${kind}: killed in time at try ${tries}`);
      const writer = await blockedWriter(volume, `killed-${tries}`);
      const removed = await removeLeftoverSnapshots(stateDirectory, silentLog());
      console.log(`# removed: ${removed.join(' ') || 'nothing'}`);
      await writer.done();
      await assertNothingLeft(volume);
    }
  });
