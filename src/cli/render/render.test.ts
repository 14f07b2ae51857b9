import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fakeDevice } from '../../../test/helpers/fake-device.ts';
import { initialStatus } from '../../backup/initial-status.ts';
import { MiB } from '../../base/bytes.ts';
import type { DeviceDocument } from '../../api/devices.ts';
import type { JobStatus } from '../../api/job-status.ts';
import type { ChainDocument } from '../../api/tracking.ts';
import { renderChains } from '../commands/chains.ts';
import { renderDeviceList } from '../commands/devices.ts';
import { renderJob } from './job.ts';
import { renderJobs } from '../commands/jobs.ts';
import { progressLines, progressParts } from './job-progress.ts';
import { printable, renderTable } from './table.ts';
import { renderTracking } from '../commands/tracking.ts';

const target = 'nbd://h:1/';
const filesystem = { type: 'ext4', uuid: 'u', label: undefined, blockSize: 4096, size: 1000 * MiB };

function job(more: Partial<JobStatus> = {}): JobStatus {
  return {
    uuid: '7d7f3f62-5a1c-4d58-9d6d-0a2f6c1f4f10',
    kind: 'full',
    state: 'IN_PROGRESS',
    phase: 'copying',
    paused: false,
    created_at: '2026-01-02T03:04:05.000Z',
    finished_at: null,
    tracker: 'none',
    rate: 10 * MiB,
    seconds_left: 75,
    warnings: [],
    error: null,
    devices: [
      {
        ...initialStatus({ device: fakeDevice('sda1', { filesystem }), target }, target),
        ...{ device_size: 1000 * MiB, used_bytes: 400 * MiB, bytes_transferred: 100 * MiB },
        ...{ bytes_unsynced: 300 * MiB, bytes_sent: 90 * MiB, bytes_zero: 10 * MiB, pass: 1 },
      },
    ],
    ...more,
  };
}

const ended = (more: Partial<JobStatus> = {}) =>
  job({
    state: 'SUCCEEDED',
    phase: 'done',
    finished_at: '2026-01-02T03:04:15.000Z',
    seconds_left: null,
    ...more,
  });

test('progress shows bytes, rate, time left, pass and bytes left', () => {
  const { fraction, parts } = progressParts(job());
  assert.equal(fraction, 0.25);
  assert.deepEqual(parts, [
    '100.00 MiB of 400.00 MiB',
    '10.00 MiB/s',
    '1:15 left',
    'pass 1',
    '300.00 MiB to go',
  ]);
  const second = job();
  second.devices[0]!.pass = 2;
  assert.equal(progressParts(second).parts.at(-1), '300.00 MiB dirty');
  assert.equal(progressParts(job({ devices: [] })).fraction, 0);
});

test('a line is written at every new phase and every five seconds, but not at the end', () => {
  const lines: string[] = [];
  let now = 0;
  const progress = progressLines({ err: (text) => lines.push(text.split(' ')[0]!) }, () => now);
  progress.show(job());
  now = 4999;
  progress.show(job());
  progress.show(job({ phase: 'freezing' }));
  progress.show(job({ paused: true }));
  now = 9999;
  progress.show(job({ paused: true }));
  progress.show(ended());
  assert.deepEqual(lines, ['copying', 'freezing', 'paused', 'paused']);
});

test('a job shows its freeze, warnings, unreadable ranges and error', () => {
  const status = ended({ warnings: [{ code: 'READ_ERRORS', message: 'one\nplace' }] });
  status.devices[0]!.freeze_ms = 104.4;
  status.devices[0]!.read_errors = [{ offset: 4096, length: 512 }];
  const text = renderJob(status);
  assert.match(text, /^state {4}SUCCEEDED$/m);
  assert.match(text, /^took {5}10\.0 s$/m);
  assert.match(text, /104 ms/);
  assert.match(text, /^warning READ_ERRORS: one\\u000aplace$/m);
  assert.match(text, /^unreadable: \/dev\/sda1 from byte 4096, 512 bytes$/m);
  const failed = renderJob(
    ended({ state: 'FAILED', error: { code: 'TARGET_FULL', message: 'm', hint: 'h' } }),
  );
  assert.match(failed, /^error {4}TARGET_FULL: m \(h\)$/m);
  assert.match(renderJob(job({ paused: true })), /^state {6}IN_PROGRESS \(paused, copying\)$/m);
});

test('jobs into a vault show the stored bytes and the recovery point', () => {
  const [device] = job().devices;
  const point = 'ab'.repeat(16);
  const into = ended({ devices: [{ ...device!, target: 'vault:default', point, bytes_stored: 3 * MiB }] });
  assert.match(
    renderJob(into),
    / sent +stored .* target +point\n\/dev\/sda1 .* 3\.00 MiB .* vault:default +(ab){16}$/m,
  );
  const jobs = renderJobs([into, ended()]);
  assert.match(
    jobs,
    / sent +stored +devices +points +remarks\n.* 3\.00 MiB +\/dev\/sda1 +(ab){16}\n.* - +\/dev\/sda1 +-$/m,
  );
  assert.doesNotMatch(renderJobs([ended()]), /stored|points/);
});

test('freezes: unknown, none, short and long', () => {
  const frozen = (ms: number | null) => {
    const status = ended();
    status.devices[0]!.freeze_ms = ms;
    return renderJob(status);
  };
  assert.match(frozen(null), / - /);
  assert.match(frozen(0), /not frozen/);
  assert.match(frozen(1.26), /1\.3 ms/);
  assert.match(frozen(1234.5), /1235 ms/);
});

test('the history has one line per job with its error or warnings', () => {
  const lines = renderJobs([
    ended({ state: 'FAILED', error: { code: 'TARGET_FULL', message: 'm' } }),
    ended({ warnings: [{ code: 'NOT_VERIFIED', message: 'm' }] }),
  ]).split('\n');
  assert.equal(lines.length, 4);
  assert.match(lines[1]!, /FAILED.*90\.00 MiB {2}\/dev\/sda1 {2}TARGET_FULL$/);
  assert.match(lines[2]!, /SUCCEEDED.*NOT_VERIFIED$/);
});

test('devices: sizes, names, mount points with control characters, and why a device cannot be backed up', () => {
  const device: DeviceDocument = {
    path: '/dev/sda1',
    kernel_name: 'sda1',
    kind: 'partition',
    size: 1024 * MiB,
    used: null,
    sector_size: 512,
    read_only: false,
    file_system: 'ext4',
    uuid: 'abc',
    label: null,
    partition_uuid: null,
    partition_label: null,
    disk: '/dev/sda',
    backing_file: null,
    holders: [],
    mounts: [{ path: '/mnt/a b\u001b[31m', read_only: false, root: '/' }],
    backup: { possible: false, how: 'swap in use' },
  };
  const [head, line] = renderDeviceList([device]).split('\n');
  assert.match(head!, /^device +size +used +filesystem +uuid +label +mounted on +backup$/);
  assert.match(line!, /^\/dev\/sda1 +1\.00 GiB +- +ext4 +abc +- +\/mnt\/a b\\u001b\[31m +no: swap in use$/);
});

test('chains: complete, torn and incomplete ones', () => {
  const chain: ChainDocument = {
    device: '/dev/sda1',
    uuid: 'abc',
    target: 'nbd://host/',
    complete: true,
    torn: false,
    tracker: 'ebpf',
    epoch: 'e',
    job: 'job-uuid',
    completed_at: '2026-11-24T06:03:47Z',
    device_size: 1024 * MiB,
    pending_bytes: 3 * MiB,
  };
  const lines = renderChains([
    chain,
    { ...chain, torn: true },
    { ...chain, complete: false, torn: true, job: null, completed_at: null },
  ]).split('\n');
  assert.match(lines[1]!, /^\/dev\/sda1 +nbd:\/\/host\/ +complete +2026-11-24 .* ebpf +3\.00 MiB +job-uuid$/);
  assert.match(lines[2]!, / torn: the last job that wrote to it did not succeed /);
  assert.match(lines[3]!, / incomplete: the next backup must be a full +- +ebpf +3\.00 MiB +-$/);
});

test('tracking: why a device is not tracked, and that writes may have been missed', () => {
  const text = renderTracking({
    trackers: [{ kind: 'ebpf', supported: false, why: 'no BTF', help: 'a newer kernel' }],
    continuity: { armed: false, why: 'x is not enabled', help: 'systemctl enable x' },
    devices: [
      {
        ...{ device: '/dev/sda1', uuid: null, tracker: null, since: null, epoch: null, unit: null },
        ...{ dirty_bytes: null, memory: null, pinned: null, why: 'no BTF', help: 'a newer kernel' },
        reboot: 'continued over the reboot',
      },
      {
        ...{ device: '/dev/sdb', uuid: null, tracker: 'blktrace', since: '2026-11-24T06:03:47Z' },
        ...{ epoch: '0123456789ab', unit: 4096, dirty_bytes: 0, memory: 1024, pinned: false },
        ...{ why: '3 records were lost', help: null, reboot: null },
      },
    ],
  });
  assert.match(text, /^ebpf: no, no BTF \(a newer kernel\)$/m);
  assert.match(text, /^over a reboot: no, x is not enabled \(systemctl enable x\)$/m);
  assert.match(text, /^\/dev\/sda1 +nothing +- .* no BTF; a newer kernel; continued over the reboot$/m);
  assert.match(text, /^\/dev\/sdb +blktrace .* 01234567 .* ends +3 records were lost$/m);
});

test('control characters do not reach the terminal', () => {
  assert.equal(printable('a\u0000b\u001b[2Jc\u009bd\ne'), 'a\\u0000b\\u001b[2Jc\\u009bd\\u000ae');
});

test('a table without rows is only its head', () => {
  assert.equal(renderTable([{ title: 'a' }, { title: 'b' }], []), 'a  b\n');
});
