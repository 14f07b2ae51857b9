/**
 * Random operations that change a device, as shell scripts: on a mounted filesystem, and on the bare device.
 * They have a seed, so that a round can be run again.
 */

export type Random = () => number;

/** Returns numbers from 0 to below 1, the same for each seed (mulberry32). */
export function seeded(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export function pick<T>(random: Random, things: readonly T[]): T {
  return things[Math.floor(random() * things.length)]!;
}

const below = (random: Random, limit: number): number => Math.floor(random() * limit);

export type Filesystem = 'ext4' | 'xfs';

export function makeFilesystem(type: Filesystem, device: string): string {
  // mkfs.xfs makes filesystems below 300 MB only for its own tests.
  return type === 'ext4'
    ? `mkfs.ext4 -q -F -E nodiscard ${device}`
    : `TEST_DIR=/ TEST_DEV=/ QA_CHECK_FS=1 mkfs.xfs -q -f -K -l size=8m ${device}`;
}

/** Makes files for the operations. */
export function seedFiles(mount: string): string {
  return `cd ${mount}; dd if=/dev/urandom of=seed bs=1M count=12 status=none; mkdir -p d
for i in 1 2 3 4 5 6 7 8; do dd if=/dev/urandom of=d/f$i bs=64k count=$i status=none; done; sync; cd /`;
}

/** Returns one operation on the filesystem mounted at `mount`, which is mounted there again afterwards. */
export function fileOperation(random: Random, type: Filesystem, mount: string, device: string): string {
  const n = below(random, 8) + 1;
  const offset = below(random, 11 << 20);
  const block = below(random, 2800);
  const length = below(random, 600_000) + 1;
  const remount = `umount ${mount}; mount -t ${type} ${device} ${mount}`;
  const operations = [
    `dd if=/dev/urandom of=seed bs=4k count=${n} seek=${block} conv=notrunc oflag=direct status=none`,
    `dd if=/dev/urandom of=seed bs=64k count=${n} seek=${block >> 4} conv=notrunc oflag=direct status=none`,
    `dd if=/dev/urandom of=seed bs=${length} count=1 seek=${offset} oflag=seek_bytes conv=notrunc,fsync status=none`,
    `dd if=/dev/urandom of=new$RANDOM bs=${length} count=1 status=none`,
    `dd if=/dev/urandom of=big bs=1M count=${n} conv=fsync status=none`,
    `xfs_io -c 'mmap 0 12m' -c 'mwrite -S ${below(random, 256)} ${offset} ${Math.min(length, 65536)}' -c 'msync -s' seed`,
    `xfs_io -c 'fpunch ${offset & ~4095} ${length}' seed`,
    `xfs_io -c 'fzero ${offset & ~4095} ${length}' seed`,
    `fallocate -l ${length} alloc$RANDOM`,
    `fallocate -l 2M unwritten; dd if=/dev/urandom of=unwritten bs=4k count=3 seek=${below(random, 500)} conv=notrunc,fsync status=none`,
    `truncate -s ${length} d/f${n} || true`,
    `mv -f d/f${n} d/g${n} 2>/dev/null || true; mv -f seed seed2; mv seed2 seed`,
    `rm -rf d/f${n} d/g${n} new* alloc*`,
    `mkdir -p e/${n}; for i in $(seq 1 60); do echo $i >e/${n}/$i; done; ln -sf seed link; chmod 600 seed; setfattr -n user.a -v ${n} seed || true`,
    `sync; fstrim ${mount} || true`,
    `cd /; ${remount}`,
    // The log is replayed at the next mount.
    `for i in $(seq 1 20); do echo $RANDOM >d/r$i; done; xfs_io -x -c 'shutdown -f' ${mount}; cd /; ${remount}`,
    `cd /; umount ${mount}; ${makeFilesystem(type, device)}; mount -t ${type} ${device} ${mount}; ${seedFiles(mount)}`,
  ];
  if (type === 'ext4')
    operations.push(
      `cd /; umount ${mount}; e2fsck -fy ${device} >/dev/null || [ $? -lt 4 ]; resize2fs ${device} 60M >/dev/null 2>&1 || true; mount -t ext4 ${device} ${mount}; resize2fs ${device} >/dev/null 2>&1 || true`,
    );
  return `cd ${mount}; ${pick(random, operations)}; cd /`;
}

/** Returns one operation on the bare device of `size` bytes. */
export function deviceOperation(random: Random, device: string, size: number, discard: boolean): string {
  const at = (unit: number, room: number): number => below(random, Math.floor((size - room) / unit));
  const length = (below(random, 2000) + 1) * 4096;
  const offset = at(4096, length) * 4096;
  const operations = [
    `dd if=/dev/urandom of=${device} bs=4k count=${below(random, 40) + 1} seek=${at(4096, 40 * 4096)} oflag=direct conv=notrunc status=none`,
    `dd if=/dev/urandom of=${device} bs=512 count=5 seek=${at(512, 2560)} oflag=direct conv=notrunc status=none || true`,
    `dd if=/dev/urandom of=${device} bs=1M count=${below(random, 6) + 1} seek=${at(1 << 20, 6 << 20)} oflag=direct conv=notrunc status=none`,
    `dd if=/dev/urandom of=${device} bs=3M count=2 seek=${at(1, 6 << 20) & ~4095} oflag=direct,seek_bytes conv=notrunc status=none`,
    `dd if=/dev/urandom of=${device} bs=1000 count=${below(random, 300) + 1} seek=${at(1000, 300_000)} conv=notrunc,fsync status=none`,
    `dd if=/dev/urandom of=${device} bs=64k count=1 seek=${Math.floor(size / 65536) - 1} oflag=direct conv=notrunc status=none`,
    `blkdiscard -z -o ${offset} -l ${length} ${device} || true`,
    `xfs_io -d -c 'pwrite -b 1m -S 7 ${offset} ${length}' ${device} >/dev/null`,
    `for i in $(seq 1 12); do dd if=/dev/urandom of=${device} bs=4k count=1 seek=$(( ($i * 1571 + ${block(random)}) % ${Math.floor(size / 4096) - 1} )) oflag=direct conv=notrunc status=none; done`,
  ];
  if (discard)
    operations.push(
      `blkdiscard -o ${offset} -l ${length} ${device} || true`,
      `for i in $(seq 1 9); do blkdiscard -o $(( ${offset & ~1048575} + $i * 8192 )) -l 4096 ${device} || true; done`,
    );
  return pick(random, operations);
}

function block(random: Random): number {
  return below(random, 20_000);
}
