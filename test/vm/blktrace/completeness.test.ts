/**
 * Proves in the virtual machine that every block that writes of all kinds changed is in the dirty map. The
 * devices are a disk, a partition, and stacked devices whose completions do not show the written data. The
 * oracle compares the whole device with its previous content, past the page cache.
 */
import './inside.ts';
import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { after, test } from 'node:test';
import { join } from 'node:path';
import { tmpdir } from 'node:os';
import { newGeneration } from '../../../src/tracking/generation.ts';
import { BlktraceTracker } from '../../../src/tracking/blktrace/blktrace-tracker.ts';
import { changedBlocks, describeDevice, sh, snapshot } from '../guest.ts';

/**
 * VM_FULL=1: larger devices, XFS too, and ROUNDS rounds. Otherwise only as much as ./run_tests has time for.
 */
const full = process.env['VM_FULL'] === '1';
const rounds = full ? Number(process.env['ROUNDS'] ?? 1) : 1;
/** MiB of each device. XFS cannot be smaller than 300. */
const mib = full ? 320 : 32;
const filesystems = [['ext4', '-q -F -E nodiscard'], ...(full ? [['xfs', '-q -f -K']] : [])] as const;
const tracker = new BlktraceTracker({ runDirectory: mkdtempSync(join(tmpdir(), 'blktrace-')) });
after(() => tracker.close());

/** Returns raw writes of many sizes and kinds; `seed` changes their places. */
function rawWrites(path: string, seed: number): string {
  const at = (n: number) => (n * 7919 + seed * 104_729) % (mib - 12);
  return `
    dd if=/dev/urandom of=${path} bs=4k count=50 seek=${at(1) * 256} oflag=direct conv=notrunc status=none
    sector=$(blockdev --getss ${path})
    dd if=/dev/urandom of=${path} bs=$sector count=37 seek=$((${at(2)} * 1048576 / sector + 3)) oflag=direct conv=notrunc status=none
    dd if=/dev/urandom of=${path} bs=1M count=7 seek=${at(3)} oflag=direct conv=notrunc status=none
    dd if=/dev/urandom of=${path} bs=3M count=1 seek=${Math.floor(at(4) / 3)} oflag=direct conv=notrunc status=none
    dd if=/dev/urandom of=${path} bs=1000 count=900 seek=${at(5) * 1000} conv=notrunc,fsync status=none
    blkdiscard -z -o $(( ${at(6)} * 1048576 + 4096 )) -l 2097152 ${path}
    blkdiscard -o $(( ${at(7)} * 1048576 )) -l 5242880 ${path} || true
    sync`;
}

const filesystemWrites = `
  cd /mnt
  for i in $(seq 1 20); do head -c $((i * 3000)) /dev/urandom >new$i; done
  head -c 6000000 /dev/urandom >big; sync
  dd if=/dev/urandom of=big bs=4k count=20 seek=100 conv=notrunc status=none
  dd if=/dev/urandom of=big bs=64k count=4 seek=9 oflag=direct conv=notrunc status=none
  rm -f new3 new4; truncate -s 1000 new5; mv new6 renamed; ln -s renamed link
  fallocate -l 3M reserved; dd if=/dev/urandom of=reserved bs=64k count=2 seek=3 conv=notrunc status=none
  fallocate -p -o 1M -l 1M big; fallocate -z -o 3M -l 1M big
  rm -f old*; sync; fstrim /mnt; chmod 700 new7; sync; cd /`;

async function round(path: string, what: string, work: () => void, mount?: string): Promise<string> {
  const device = describeDevice(path);
  const { doubt } = await tracker.track(device);
  assert.equal(doubt, undefined);
  const freeze = (): string => sh(mount === undefined ? 'sync' : `fsfreeze -f ${mount}`);
  const thaw = (): string => sh(mount === undefined ? 'true' : `fsfreeze -u ${mount}`);
  freeze();
  const first = await tracker.take(device, { frozen: true });
  first.commit(newGeneration());
  const before = snapshot(path);
  thaw();
  work();
  freeze();
  const taken = await tracker.take(device, { frozen: mount !== undefined });
  const { dirty } = taken;
  const changed = changedBlocks(before, path);
  thaw();
  taken.commit(newGeneration());
  const missed = changed.filter((offset) => !dirty.has(offset / dirty.unit));
  assert.equal(missed.length, 0, `${what}: changed and not marked: ${missed.length}, from ${missed[0] ?? 0}`);
  assert.ok(changed.length > 0, `${what} changed nothing`);
  const line = `${what}: ${changed.length} blocks changed, ${dirty.count()} marked (${(dirty.count() / changed.length).toFixed(2)})`;
  console.log(`# ${line}`);
  return line;
}

async function everyKind(path: string): Promise<void> {
  for (let seed = 1; seed <= rounds; seed++) {
    await round(path, `${path} raw ${seed}`, () => void sh(rawWrites(path, seed)));
    for (const [type = '', options = ''] of filesystems) {
      sh(`mkfs.${type} ${options} ${path} && mkdir -p /mnt && mount -t ${type} ${path} /mnt
        for i in $(seq 1 10); do head -c 200000 /dev/urandom >/mnt/old$i; done; sync`);
      try {
        await round(path, `${path} ${type} ${seed}`, () => void sh(filesystemWrites), '/mnt');
      } finally {
        sh('umount /mnt');
      }
    }
  }
  await tracker.untrack(describeDevice(path));
}

/** Fills with random data, so that discards and zeroing change something. */
function fill(path: string): void {
  sh(`dd if=/dev/urandom of=/tmp/random bs=1M count=16 status=none
    i=0; while dd if=/tmp/random of=${path} bs=1M count=16 seek=$i oflag=direct conv=notrunc status=none 2>/dev/null; do
      i=$((i + 16)); [ $i -lt ${mib} ] || break; done; true`);
}

sh('modprobe crc32c_generic; modprobe ext4; modprobe xfs; modprobe dm-mod');
/** A test that ./run_tests has no time for. */
const more = (name: string, work: () => Promise<void>) => full && test(name, work);

more('virtio disk', async () => {
  fill('/dev/vda');
  await everyKind('/dev/vda');
});

test('two partitions of one disk, which share its trace', async () => {
  sh(
    `printf 'label: gpt\\nstart=2048,size=20480\\nstart=30001,size=${mib * 2048 + 1}\\n' | sfdisk -q /dev/vdb`,
  );
  fill('/dev/vdb2');
  const other = describeDevice('/dev/vdb1');
  await tracker.track(other);
  (await tracker.take(other)).commit(newGeneration());
  await everyKind('/dev/vdb2');
  const { dirty } = await tracker.take(other);
  assert.equal(dirty.count(), 0, 'what was written to one partition was marked in the other');
  await tracker.untrack(other);
});

/** The border is at an odd place, so that writes are split there. */
test('device-mapper: linear over two segments', async () => {
  sh('wipefs -qa /dev/vda /dev/vdb; blockdev --rereadpt /dev/vdb');
  const border = mib * 1024 + 1;
  await mapped(`0 ${border} linear /dev/vda 2048\\n${border} ${mib * 1024 - 5003} linear /dev/vdb 4099\\n`);
});

more('device-mapper: striped', async () => {
  await mapped(`0 ${mib * 2048} striped 2 32 /dev/vda 0 /dev/vdb 0\\n`);
});

more('device-mapper: thin', async () => {
  sh(`modprobe dm-thin-pool; dd if=/dev/zero of=/dev/vda bs=1M count=8 oflag=direct status=none
    echo '0 8192 linear /dev/vda 0' | dmsetup create meta --noudevsync
    echo '0 900000 linear /dev/vdb 0' | dmsetup create data --noudevsync; dmsetup mknodes
    echo '0 900000 thin-pool /dev/mapper/meta /dev/mapper/data 128 0' | dmsetup create pool --noudevsync; dmsetup mknodes
    dmsetup message /dev/mapper/pool 0 'create_thin 0'`);
  try {
    await mapped(`0 ${mib * 2048} thin /dev/mapper/pool 0\\n`);
  } finally {
    sh('for each in pool data meta; do dmsetup remove --noudevsync $each; done');
  }
});

for (const [level, iostats] of [
  [0, 1],
  [0, 0],
  [1, 1],
] as const)
  more(`md raid${level}, iostats=${iostats}`, async () => {
    sh(`modprobe raid${level} || modprobe md-mod; wipefs -qa /dev/vda /dev/vdb
      mdadm -q --create /dev/md0 --run --assume-clean --metadata=1.0 -l ${level} -n 2 /dev/vda /dev/vdb </dev/null
      echo ${iostats} >/sys/block/md0/queue/iostats`);
    try {
      fill('/dev/md0');
      await everyKind('/dev/md0');
    } finally {
      sh('mdadm -q --stop /dev/md0');
    }
  });

more('zram', async () => {
  sh(`modprobe zram num_devices=1; echo ${mib}M >/sys/block/zram0/disksize`);
  fill('/dev/zram0');
  await everyKind('/dev/zram0');
});

const nvme = process.env['VM_NVME'] === '1' ? more : () => undefined;
nvme('NVMe: one disk, and another with two paths', async () => {
  sh('modprobe nvme; for i in $(seq 50); do [ -b /dev/nvme0n1 ] && break; sleep 0.1; done; sleep 1');
  for (const path of sh('ls /dev/nvme*n1').trim().split('\n')) {
    console.log(
      `# ${path}: ${sh(`cat /sys/block/${path.slice(5)}/queue/max_discard_segments; ls -d /sys/block/${path.slice(5)}/mq || true`).replaceAll('\n', ' ')}`,
    );
    fill(path);
    await everyKind(path);
  }
});

async function mapped(table: string): Promise<void> {
  sh(`printf '${table}' | dmsetup create tracked --noudevsync; dmsetup mknodes`);
  try {
    fill('/dev/mapper/tracked');
    await everyKind('/dev/mapper/tracked');
  } finally {
    sh('dmsetup remove --noudevsync tracked');
  }
}
