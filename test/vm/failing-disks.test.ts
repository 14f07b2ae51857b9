/**
 * Proves with device-mapper the behaviour of jobs on disks that are slow, hang, fail or vanish. A bad block
 * in use is never left out silently, and one in free space does no harm. A job whose reads hang is cancelled
 * within seconds, and the daemon also stops then. No filesystem stays frozen. Then there are targets whose
 * disk refuses or loses writes.
 */
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { type Extent, complement, merged } from '../../src/base/extents.ts';
import { MiB } from '../../src/base/bytes.ts';
import type { ErrorDocument } from '../../src/base/errors.ts';
import type { JobStatus } from '../../src/api/job-status.ts';
import { type TestDaemon, startDaemon, waitFor } from '../helpers/daemon.ts';
import { jobStatus, untilEnded, writeThrough } from '../helpers/backup.ts';
import { assertSameRanges, oracleUsed } from '../helpers/image-proof.ts';
import { post } from '../helpers/post.ts';
import { sh } from './guest.ts';

sh('for m in dm-mod dm-delay dm-flakey ext4; do modprobe $m; done');

const size = 64 * MiB;
const sector = 512;
const source = '/dev/mapper/source';
const mountPoint = '/source';
/** The files are on tmpfs; the guest's root is in memory too. */
const scratch = '/tmp/failing-disks';
const image = join(scratch, 'image');
const reference = join(scratch, 'reference');
/** The machine is emulated, and may have to share its processors. */
const patienceMs = 180_000;
mkdirSync(scratch, { recursive: true });
/** The hook copies the disk below the source inside the freeze of each job. */
const hook = join(scratch, 'copy');
writeFileSync(hook, `#!/bin/sh\nexec dd if=/dev/vda of=${reference} bs=1M iflag=direct status=none\n`, {
  mode: 0o755,
});

/** Replaces the table of a device, without a freeze. */
function table(lines: readonly string[], name = 'source'): void {
  sh(`dmsetup suspend --noflush --nolockfs --noudevsync ${name}
printf '%s\\n' ${lines.map((line) => `'${line}'`).join(' ')} | dmsetup load ${name}
dmsetup resume --noudevsync ${name}`);
}

const whole = [`0 ${size / sector} linear /dev/vda 0`];

/** Returns the table of the source with a range of bad sectors. */
function withBad({ offset, length }: Extent): string[] {
  const [from, count] = [offset / sector, length / sector];
  const end = from + count;
  return [
    ...(from > 0 ? [`0 ${from} linear /dev/vda 0`] : []),
    `${from} ${count} error`,
    `${end} ${size / sector - end} linear /dev/vda ${end}`,
  ];
}

sh(`dmsetup create source --noudevsync --table '${whole[0]!}'; dmsetup mknodes
mkfs.ext4 -q -F ${source}; mkdir -p ${mountPoint}; mount -o errors=continue ${source} ${mountPoint}
dd if=/dev/urandom of=${mountPoint}/victim bs=1M count=12 conv=fsync status=none; sync -f ${mountPoint}`);

const start = { entry: 'build/dattod' };
let daemon: TestDaemon = await startDaemon(start);
after(async () => {
  sh('dmsetup resume source || true');
  await daemon.stop();
});

type Outcome = { readonly refused: ErrorDocument } | { readonly refused?: never; readonly status: JobStatus };

interface Wanted {
  readonly device?: string;
  readonly target?: string;
  readonly kind?: 'full' | 'differential';
  readonly options?: object;
  readonly during?: (job: string) => Promise<void> | void;
}

async function backUp({
  device = source,
  target = image,
  kind = 'full',
  options = {},
  during,
}: Wanted): Promise<Outcome> {
  const answer = await post<JobStatus>(daemon.socket, '/v1/jobs', {
    ...{ kind, devices: [{ device, target }] },
    options: { tracker: 'none', max_freeze_ms: 60_000, frozen_hook: hook, ...options },
  });
  if (answer.refused !== undefined) return answer;
  const { uuid } = answer.body;
  await during?.(uuid);
  return { status: await untilEnded(daemon, uuid, patienceMs) };
}

async function failing(wanted: Wanted): Promise<ErrorDocument> {
  const outcome = await backUp(wanted);
  if (outcome.refused !== undefined) return outcome.refused;
  assert.equal(outcome.status.state, 'FAILED', JSON.stringify(outcome.status));
  return outcome.status.error!;
}

async function succeeding(wanted: Wanted, warnings: readonly string[] = []): Promise<JobStatus> {
  const outcome = await backUp(wanted);
  assert.ok(outcome.refused === undefined, JSON.stringify(outcome.refused));
  const { state, error, warnings: said } = outcome.status;
  assert.deepEqual(
    [state, error, said.map(({ code }) => code)],
    ['SUCCEEDED', null, warnings],
    JSON.stringify(said),
  );
  return outcome.status;
}

/** Waits until the job copies. */
const copying = (job: string): Promise<void> =>
  waitFor('the job copies', patienceMs, async () => {
    const { phase, state } = await jobStatus(daemon, job);
    assert.equal(state, 'IN_PROGRESS');
    return phase === 'copying';
  });

/**
 * Asserts that all used blocks of the image equal those of the disk below in the freeze, except the bad ones.
 */
async function assertImage(but: readonly Extent[] = []): Promise<void> {
  const used = await oracleUsed('ext4', reference, size);
  const left = [...complement(used, size), ...but];
  left.sort((a, b) => a.offset - b.offset);
  const compared = [...complement(merged(left), size)];
  await assertSameRanges(reference, image, compared);
}

/** Makes the copy for facts that a test needs before the job. Each job that freezes makes it again. */
function copyReference(): void {
  sh(`sync -f ${mountPoint}; dd if=/dev/vda of=${reference} bs=1M iflag=direct status=none`);
}

/** Returns the bytes of the file's first extent on the device. */
function extentOf(file: string): Extent {
  const line = sh(`filefrag -v -b4096 ${file}`)
    .split('\n')
    .find((each) => /^\s+0:/.test(each))!;
  const [, from = '', to = ''] = /^\s+0:\s+\d+\.\.\s*\d+:\s+(\d+)\.\.\s*(\d+):/.exec(line) ?? [];
  return { offset: Number(from) * 4096, length: (Number(to) - Number(from) + 1) * 4096 };
}

test('bad sectors in used space: named, counted, and the rest of the image is right', async () => {
  const bad = { offset: extentOf(`${mountPoint}/victim`).offset + MiB, length: 4096 };
  table(withBad(bad));
  try {
    const error = await failing({});
    assert.equal(error.code, 'DEVICE_READ_ERROR');
    assert.match(error.message, new RegExp(`${source}.*${bad.offset}`));
    const status = await succeeding({ options: { on_read_error: 'zero' } }, ['READ_ERRORS']);
    assert.deepEqual(status.devices[0]!.read_errors, [bad]);
    await assertImage([bad]);
  } finally {
    table(whole);
  }
  await writeThrough(mountPoint);
});

test('bad sectors in free space, and in metadata', async () => {
  copyReference();
  const free = [...complement(await oracleUsed('ext4', reference, size), size)].find(
    ({ length }) => length >= MiB,
  )!;
  table(withBad({ offset: free.offset + free.length / 2 - ((free.length / 2) % 4096), length: 8192 }));
  try {
    await succeeding({});
    await assertImage();
  } finally {
    table(whole);
  }
  const bitmap = /Block bitmap at (\d+)/.exec(sh(`dumpe2fs ${reference} 2>/dev/null`))![1]!;
  const block = Number(/^Block size:\s+(\d+)$/m.exec(sh(`dumpe2fs -h ${reference} 2>/dev/null`))![1]);
  const bad = { offset: Number(bitmap) * block, length: 4096 };
  table(withBad(bad));
  try {
    const outcome = await backUp({});
    const error = outcome.refused ?? outcome.status.error;
    assert.ok(error !== null, JSON.stringify(outcome));
    assert.match(error.code, /^(DEVICE_READ_ERROR|FILESYSTEM_UNREADABLE)$/);
    const zeroed = await backUp({ options: { on_read_error: 'zero' } });
    assert.ok(zeroed.refused === undefined, JSON.stringify(zeroed));
    // Without the used map everything is copied, and unreadable ranges are named.
    assert.ok(
      zeroed.status.warnings.some(({ code }) => code === 'READ_ERRORS'),
      JSON.stringify(zeroed.status),
    );
    assert.deepEqual(zeroed.status.devices[0]!.read_errors, [bad]);
    await assertImage([bad]);
  } finally {
    table(whole);
  }
});

test('reads that take 100 ms: a slow job, and a right image', async () => {
  table([`0 ${size / sector} delay /dev/vda 0 100 /dev/vda 0 0`]);
  try {
    await succeeding({});
    await assertImage();
  } finally {
    table(whole);
  }
});

test('reads that hang: the job is cancelled and SIGTERM works within seconds, nothing frozen', async () => {
  const hang = (): string => sh('dmsetup suspend --noflush --nolockfs --noudevsync source');
  const resume = (): string => sh('dmsetup resume --noudevsync source');
  const slow = { options: { rate: MiB } };
  try {
    const outcome = await backUp({
      ...slow,
      during: async (job) => {
        await copying(job);
        hang();
        const began = performance.now();
        await post(daemon.socket, `/v1/jobs/${job}/stop`);
        await untilEnded(daemon, job, patienceMs).catch(() => undefined);
        console.log(`# cancelled after ${Math.round(performance.now() - began)} ms`);
        assert.ok(performance.now() - began < 40_000);
      },
    });
    assert.equal(outcome.refused ?? outcome.status.state, 'CANCELLED');
    resume();
    await writeThrough(mountPoint);

    const { body } = await post<JobStatus>(daemon.socket, '/v1/jobs', {
      ...{ kind: 'full', devices: [{ device: source, target: image }] },
      options: { tracker: 'none', rate: MiB },
    });
    await copying(body!.uuid);
    hang();
    const began = performance.now();
    await daemon.end();
    console.log(`# SIGTERM took ${Math.round(performance.now() - began)} ms`);
    assert.ok(performance.now() - began < 60_000);
  } finally {
    resume();
  }
  await writeThrough(mountPoint);
  daemon = await startDaemon({ paths: daemon, ...start });
  await succeeding({});
  await assertImage();
});

test('a target whose disk fails or loses writes', async () => {
  const backing = `/dev/vdb 0`;
  const sectors = (128 * MiB) / sector;
  sh(`dmsetup create target --noudevsync --table '0 ${sectors} linear ${backing}'; dmsetup mknodes
mkfs.ext4 -q -F /dev/mapper/target; mkdir -p /target; mount -o errors=continue /dev/mapper/target /target`);
  const target = '/target/image';
  const well = [`0 ${sectors} linear ${backing}`];
  try {
    await succeeding({ target });
    sh(`dd if=/dev/urandom of=${mountPoint}/second bs=1M count=4 conv=fsync status=none`);
    table([`0 ${sectors} flakey ${backing} 0 600 1 error_writes`], 'target');
    const error = await failing({ target, kind: 'differential' });
    assert.match(error.code, /^(TARGET_WRITE_ERROR|TARGET_MISMATCH)$/, JSON.stringify(error));
    table(well, 'target');
    // The disk confirms writes and loses them. Data in the page cache may pass the verification, but the next
    // job must notice the loss.
    table([`0 ${sectors} flakey ${backing} 0 600 1 drop_writes`], 'target');
    await backUp({ target, kind: 'differential', options: { verify: 'full' } });
    table(well, 'target');
    sh('umount /target; e2fsck -fy /dev/mapper/target || true; mount /dev/mapper/target /target');
    // The target does not hold the data that it confirmed. All of it is sent again, and the job reports it.
    await succeeding({ target, kind: 'differential', options: { verify: 'full' } }, ['FELL_BACK']);
    sh(`cp --sparse=always ${target} ${image}`);
    await assertImage();
  } finally {
    table(well, 'target');
    sh('umount /target; dmsetup remove --noudevsync --retry target');
  }
});

test('a disk that is removed while it is read', async () => {
  sh('dd if=/dev/urandom of=/dev/sda bs=1M count=32 oflag=direct status=none');
  const gone = await failing({
    device: '/dev/sda',
    target: join(scratch, 'taken-away'),
    options: { rate: MiB },
    during: async (job) => {
      await copying(job);
      sh('echo 1 >/sys/block/sda/device/delete');
    },
  });
  assert.match(gone.code, /^DEVICE_(GONE|READ_ERROR)$/, JSON.stringify(gone));
  const error = await failing({
    options: { rate: MiB },
    during: async (job) => {
      await copying(job);
      table([`0 ${size / sector} error`]);
    },
  });
  assert.match(error.code, /^(DEVICE_GONE|DEVICE_READ_ERROR|FREEZE_FAILED)$/, JSON.stringify(error));
  table(whole);
});
