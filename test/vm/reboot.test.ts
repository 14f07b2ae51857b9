/**
 * Tests incremental backups over reboots. Each test is one boot of the same disks, named by VM_BOOT, and ends
 * with the power-off. test/integration/vm-reboot.test.ts runs them one after the other. The shutdown has the
 * steps of systemd with the units of packaging/: the daemon ends, filesystems are unmounted,
 * `dattod reboot save`, root is remounted read-only, `dattod reboot save --late`.
 *
 *     vda ext4 and vdb XFS     data
 *     vdc ext4                 begins and ends read-only, like a root filesystem
 *
 *     vdd ext4                 images and the daemon's state
 *     vde                      a device for the record
 *     vdf                      a copy of vde
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { prepareJob } from '../../src/backup/prepare/prepare-job.ts';
import { readConfig } from '../../src/daemon/config.ts';
import { createDaemon, type Daemon } from '../../src/daemon/daemon.ts';
import type { JobStatus } from '../../src/api/job-status.ts';
import type { TrackingDocument } from '../../src/api/tracking.ts';
import type { RebootOutcome } from '../../src/daemon/reboot/outcome.ts';
import { runReboot } from '../../src/daemon/reboot/run.ts';
import { defaultSettings } from '../../src/daemon/settings.ts';
import { findDevice } from '../../src/devices/find.ts';
import { listDevices } from '../../src/devices/inventory.ts';
import { thawLeftovers } from '../../src/freeze/leftovers.ts';
import { tryLock } from '../../src/linux/flock.ts';
import { trackerCandidates } from '../../src/tracking/candidates.ts';
import { waitFor } from '../helpers/daemon.ts';
import { sh } from './guest.ts';

const boot = process.env['VM_BOOT'];
const run = '/run/dattod';
const state = '/state/dattod';
const images = '/state/images';
const config = '/tmp/config.json';
const data = { a: '/dev/vda', b: '/dev/vdb', c: '/dev/vdc' } as const;
type Name = keyof typeof data;
const names: readonly Name[] = ['a', 'b', 'c'];
/** The machine is emulated, and may run beside other work. */
const patienceMs = 300_000;
const dependencies = {
  ...{ prepareJob, listDevices, findDevice: (...args: Parameters<typeof findDevice>) => findDevice(...args) },
  ...{ thawLeftovers, tryLock, trackerCandidates },
};

// Runs in this process and not by the programs: each start of Node takes the emulated machine ten seconds.
let daemon: Daemon | undefined;

before(() => {
  sh('mkdir -p /state /mnt/a /mnt/b /mnt/c /mnt/image; modprobe -a ext4 xfs loop');
});
after(async () => {
  await daemon?.stop('the test failed');
});

async function reboot(what: string): Promise<string> {
  const said: string[] = [];
  const places = what.startsWith('prepare')
    ? []
    : ['--state-dir', state, '--run-dir', run, '--config', config];
  const code = await runReboot(
    [...what.split(' '), ...places],
    () => Promise.resolve(dependencies),
    (line) => said.push(line),
  );
  assert.equal(code, 0);
  for (const line of said) console.log(`# ${what}: ${line}`);
  return said.join('\n');
}

/** Resumes from the record of the last boot. Returns the outcome by the letter of the disk. */
async function resume(): Promise<(name: Name) => string> {
  await reboot('resume --wait 1');
  const outcome = JSON.parse(readFileSync(join(run, 'reboot.json'), 'utf8')) as RebootOutcome;
  return (name) => {
    const found = outcome.devices.find(({ device }) => device === data[name]);
    if (found === undefined) return outcome.why ?? 'it is not named';
    return found.epoch === null ? (found.why ?? '') : 'goes on';
  };
}

/** Root filesystems are mounted before the agent runs. Mounts `vdd`, and the named ones read-only. */
function begin(place: 'file' | 'device', ...readOnly: readonly Name[]): void {
  sh('mount /dev/vdd /state');
  writeFileSync(config, JSON.stringify(place === 'file' ? {} : { reboot_record: '/dev/vde' }));
  for (const name of readOnly) sh(`mount -o ro ${data[name]} /mnt/${name}`);
}

/** Mounts the unmounted filesystems, and makes the read-only ones writable. */
function mountAll(): void {
  for (const name of names)
    sh(`mountpoint -q /mnt/${name} && mount -o remount,rw /mnt/${name} || mount ${data[name]} /mnt/${name}`);
}

async function startDaemon(): Promise<void> {
  daemon = await createDaemon(
    dependencies,
    { ...defaultSettings, stateDirectory: state, runDirectory: run, logFile: '/tmp/log' },
    await readConfig(config, true),
  );
}

async function stopDaemon(): Promise<void> {
  assert.ok(await daemon?.stop('shutdown'));
  daemon = undefined;
}

/** Makes files, changes others in place, and leaves no data only in memory. */
function write(name: Name, what: string): void {
  sh(`cd /mnt/${name}
    dd if=/dev/urandom of=${what} bs=64k count=8 status=none
    [ -e old ] || dd if=/dev/urandom of=old bs=64k count=32 status=none
    dd if=/dev/urandom of=old bs=4k count=3 seek=$((RANDOM % 500)) conv=notrunc oflag=direct status=none
    sync -f .`);
}

function ask<T>(path: string, body?: unknown): Promise<T> {
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath: defaultSettings.socket, path, method: body ? 'POST' : 'GET' });
    asked.once('error', reject).once('response', (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (part: string) => (text += part));
      response.once('end', () => {
        if ((response.statusCode ?? 500) < 300) resolve(JSON.parse(text) as T);
        else reject(new Error(text));
      });
    });
    asked.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

async function backUp(
  name: Name,
  kind: string,
): Promise<{ kind: string; reason: string | null; sent: number }> {
  const device = { device: data[name], target: `${images}/${name}` };
  const { uuid } = await ask<JobStatus>('/v1/jobs', { kind, devices: [device], options: { verify: 'none' } });
  let status: JobStatus | undefined;
  await waitFor(`the ${kind} of ${name} ends`, patienceMs, async () => {
    status = await ask<JobStatus>(`/v1/jobs/${uuid}`);
    return status.finished_at !== null;
  });
  assert.equal(status?.state, 'SUCCEEDED', JSON.stringify(status));
  const [done] = status.devices;
  assert.equal(done!.tracker, 'ebpf');
  const found = { kind: done!.kind, reason: done!.fallback_reason, sent: done!.bytes_sent };
  const why = found.reason === null ? '' : `: ${found.reason}`;
  console.log(`# ${name}: ${kind} was ${found.kind}, ${found.sent} bytes${why}`);
  return found;
}

async function incremental(name: Name): Promise<void> {
  const { kind, reason, sent } = await backUp(name, 'incremental');
  assert.deepEqual([kind, reason], ['incremental', null]);
  assert.ok(sent < 24 * 1024 * 1024, `${sent} bytes for a few hundred KiB that changed`);
}

async function differential(name: Name, reason: RegExp): Promise<void> {
  const found = await backUp(name, 'incremental');
  assert.equal(found.kind, 'differential');
  assert.match(found.reason ?? '', reason);
}

/** Asserts that each image holds the same files as its device. This does not write to the devices. */
function compareAll(): void {
  for (const name of names) {
    const options = name === 'b' ? 'ro,norecovery,nouuid' : 'ro,noload';
    sh(`mkdir -p /mnt/device; mount -o loop,${options} ${images}/${name} /mnt/image
      mount -o ${options} ${data[name]} /mnt/device
      diff -r /mnt/device /mnt/image
      umount /mnt/device /mnt/image`);
  }
}

/** Does the steps of systemd before the last stage: data unmounted, root (`vdc`) read-only. */
function unmountAll(): void {
  sh('umount /mnt/a; umount /mnt/b; sync; mount -o remount,ro /mnt/c');
}

/**
 * Writes to all devices, which are then at rest. A backup of an idle device needs no freeze, whose guard is
 * slow here.
 */
function writeAll(what: string): void {
  mountAll();
  for (const name of names) write(name, what);
  unmountAll();
}

async function saved(how: string): Promise<void> {
  const said = await reboot(how);
  for (const name of names) assert.match(said, new RegExp(`${data[name]}: recorded`));
}

async function tracking(name: Name): Promise<string> {
  const { devices } = await ask<TrackingDocument>('/v1/tracking');
  return devices.find(({ device }) => device === data[name])?.reboot ?? '';
}

const boots: Readonly<Record<string, () => Promise<void>>> = {
  async 'a first boot: full backups, and a clean shutdown'() {
    sh(`mkfs.ext4 -q /dev/vda; mkfs.xfs -q /dev/vdb; mkfs.ext4 -q /dev/vdc; mkfs.ext4 -q /dev/vdd`);
    begin('file');
    sh(`mkdir -p ${images}`);
    const outcome = await resume();
    assert.match(outcome('a'), /no record/);
    writeAll('first');
    await startDaemon();
    for (const name of names) assert.equal((await backUp(name, 'full')).kind, 'full');
    await stopDaemon();
    mountAll();
    for (const name of names) write(name, 'second');
    const early = await reboot('save');
    for (const name of names)
      assert.match(early, new RegExp(`${data[name]}: not recorded: it was still mounted`));
    unmountAll();
    await saved('save');
    sh('umount /mnt/c /state');
  },

  async 'tracking goes on, for ext4, XFS and what was read-only; the record is saved to a device, late'() {
    begin('file', 'c');
    const outcome = await resume();
    assert.deepEqual(names.map(outcome), ['goes on', 'goes on', 'goes on']);
    assert.ok(!existsSync(join(state, 'reboot-record')), 'the record was used');
    writeAll('third');
    await startDaemon();
    for (const name of names) assert.match(await tracking(name), /^continued over the reboot of 20/);
    for (const name of names) await incremental(name);
    await stopDaemon();
    compareAll();
    writeAll('fourth');
    await reboot('prepare /dev/vde');
    writeFileSync(config, JSON.stringify({ reboot_record: '/dev/vde' }));
    // The filesystem of the state is unmounted, as when root is read-only.
    sh('umount /state');
    await saved('save --late');
    sh('dd if=/dev/vde of=/dev/vdf bs=1M oflag=direct status=none; umount /mnt/c');
  },

  async 'a root filesystem of ext4 goes on after e2fsck and a read-only mount, one of XFS does not'() {
    sh('e2fsck -p /dev/vdc >/dev/null');
    begin('device', 'b', 'c');
    const outcome = await resume();
    assert.equal(outcome('a'), 'goes on');
    assert.equal(outcome('c'), 'goes on');
    assert.match(outcome('b'), /^its log (head|in front)/);
    writeAll('fifth');
    await startDaemon();
    await incremental('a');
    await incremental('c');
    await differential('b', /not continued over the reboot of 20.*: its log/);
    await incremental('b');
    await stopDaemon();
    compareAll();
    // An older record is in the place of the record of this shutdown.
    sh('umount /mnt/c; dd if=/dev/vdf of=/dev/vde bs=1M oflag=direct status=none; umount /state');
  },

  async 'a record that is used a second time is found out; two of three are written to after the next'() {
    begin('device');
    const outcome = await resume();
    assert.match(outcome('a'), /^its mount count was/);
    assert.match(outcome('b'), /^its log/);
    assert.match(outcome('c'), /^its mount count was/);
    writeAll('sixth');
    await startDaemon();
    await differential('a', /mount count/);
    await differential('b', /its log/);
    await differential('c', /mount count/);
    await stopDaemon();
    compareAll();
    await saved('save');
    // A boot without the agent could do this: a write in place, and a mount alone.
    sh(`mount /dev/vda /mnt/a
      dd if=/dev/urandom of=/mnt/a/old bs=4k count=1 seek=7 conv=notrunc oflag=direct status=none
      umount /mnt/a; mount /dev/vdb /mnt/b; umount /mnt/c /state`);
  },

  async 'what was mounted meanwhile is compared, and what was not goes on; then the power is cut'() {
    begin('device', 'c');
    const outcome = await resume();
    assert.match(outcome('a'), /^its mount count was/);
    assert.match(outcome('b'), /^(its|the) log/);
    assert.equal(outcome('c'), 'goes on');
    writeAll('seventh');
    await startDaemon();
    await differential('a', /mount count/);
    await differential('b', /log/);
    await incremental('c');
    await stopDaemon();
    compareAll();
    mountAll();
    for (const name of names) write(name, 'eighth');
  },

  async 'after a power cut everything is compared'() {
    begin('device');
    const outcome = await resume();
    for (const name of names) assert.match(outcome(name), /no record of a clean shutdown/);
    // The mounts replay the journals.
    writeAll('ninth');
    await startDaemon();
    for (const name of names) await differential(name, /no record of a clean shutdown/);
    await stopDaemon();
    compareAll();
  },
};

const chosen = Object.entries(boots)[Number(boot)]!;
test(chosen[0], chosen[1]);
