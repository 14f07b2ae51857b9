/**
 * Block devices of every kind, made in the guest from its scratch disks. A tracker sees the writes to each
 * kind differently. Each is about 100 MiB, so that the comparison is quick. There is no udev in the guest.
 */
import { nvmeDisk, sh } from './guest.ts';

export interface Stack {
  readonly name: string;
  /** A script that prints the device's path as its last line. */
  readonly up: string | (() => Promise<string>);
  readonly down: string;
  /** True if a discard keeps or zeroes the data, or is not supported. Rounds use discards only then. */
  readonly discard: boolean;
}

/** The disks that the machine needs for them: vda, vdb, vdc build stacks, the others are used directly. */
export const stackDisks = [
  { bus: 'virtio', size: 512 << 20 },
  { bus: 'virtio', size: 512 << 20 },
  { bus: 'virtio', size: 512 << 20 },
  { bus: 'virtio', size: 96 << 20 },
  { bus: 'scsi', size: 96 << 20 },
  { bus: 'nvme', size: 96 << 20 },
  { bus: 'nvme-multipath', size: 96 << 20 },
] as const;

const sectors = 196608;
const lvmConfig = `--config 'activation{udev_sync=0 udev_rules=0 monitoring=0 verify_udev_operations=1} devices{obtain_device_list_from_udev=0 use_devicesfile=0} backup{backup=0 archive=0}'`;

const dm = (name: string, table: string): string =>
  `printf '${table}' | dmsetup create ${name} --noudevsync; dmsetup mknodes; echo /dev/mapper/${name}`;
const dmDown = (name: string): string => `dmsetup remove --noudevsync --retry ${name}; dmsetup mknodes`;
const md = (level: string, disks: string, more = ''): string =>
  `for d in ${disks}; do dd if=/dev/zero of=$d bs=1M count=2 oflag=direct status=none; done
   mdadm --create /dev/md0 --run --level=${level} ${more} --size=${level === '1' ? 98304 : 49152}K --raid-devices=${disks.split(' ').length} ${disks} </dev/null >&2
   echo /dev/md0`;
const mdDown = (disks: string): string => `mdadm --stop /dev/md0 >&2; mdadm --zero-superblock ${disks} >&2`;

const disk = (name: string, path: string): Stack => ({ name, up: `echo ${path}`, down: '', discard: true });

export const stacks: readonly Stack[] = [
  disk('virtio', '/dev/vdd'),
  disk('SCSI', '/dev/sda'),
  { name: 'NVMe', up: () => nvmeDisk('one path'), down: '', discard: true },
  { name: 'NVMe with two paths', up: () => nvmeDisk('two paths'), down: '', discard: true },
  {
    name: 'partition at an odd sector',
    up: `printf 'label: gpt\\nstart=4097,size=1000\\nstart=6143,size=${sectors + 1}\\n' | sfdisk -q --no-reread /dev/vda >&2; blockdev --rereadpt /dev/vda; echo /dev/vda2`,
    down: `sfdisk -q --delete /dev/vda >&2; dd if=/dev/zero of=/dev/vda bs=1M count=1 oflag=direct status=none; blockdev --rereadpt /dev/vda`,
    discard: true,
  },
  {
    name: 'loop on a filesystem',
    up: `mkfs.ext4 -q -F /dev/vda; mkdir -p /under; mount /dev/vda /under; truncate -s 96M /under/image; losetup --find --show /under/image`,
    down: `losetup -D; umount /under`,
    discard: true,
  },
  {
    name: 'dm linear of two',
    up: dm('two', `0 100000 linear /dev/vda 2048\\n100000 ${sectors - 100000} linear /dev/vdb 4099\\n`),
    down: dmDown('two'),
    discard: true,
  },
  {
    name: 'dm striped',
    up: dm('striped', `0 ${sectors} striped 2 128 /dev/vda 0 /dev/vdb 0\\n`),
    down: dmDown('striped'),
    discard: true,
  },
  {
    name: 'dm crypt',
    up: dm(
      'crypt',
      `0 ${sectors} crypt aes-xts-plain64 ${'0123456789abcdef'.repeat(4)} 0 /dev/vda 0 1 allow_discards\\n`,
    ),
    down: dmDown('crypt'),
    discard: true,
  },
  {
    name: 'dm thin',
    up: `dd if=/dev/zero of=/dev/vdb bs=1M count=4 oflag=direct status=none
${dm('pool', '0 900000 thin-pool /dev/vdb /dev/vda 128 0\\n')} >&2; dmsetup message pool 0 "create_thin 0"; ${dm('thin', `0 ${sectors} thin /dev/mapper/pool 0\\n`)}`,
    down: `${dmDown('thin')}; ${dmDown('pool')}`,
    discard: true,
  },
  {
    name: 'dm snapshot origin',
    up: `dd if=/dev/zero of=/dev/vdb bs=1M count=2 oflag=direct status=none
${dm('origin', `0 ${sectors} snapshot-origin /dev/vda\\n`)} >&2; ${dm('snap', `0 ${sectors} snapshot /dev/vda /dev/vdb N 128\\n`)} >&2
dmsetup suspend --noudevsync origin; dmsetup resume --noudevsync origin; echo /dev/mapper/origin`,
    down: `${dmDown('snap')}; ${dmDown('origin')}`,
    discard: false,
  },
  {
    name: 'LVM, three segments',
    up: `lvm vgcreate -y vg /dev/vda /dev/vdb ${lvmConfig} >&2; lvm lvcreate -y -an -Zn -Wn -n a -L 32M vg /dev/vda ${lvmConfig} >&2
lvm lvcreate -y -an -Zn -Wn -n hole -L 8M vg /dev/vda ${lvmConfig} >&2; lvm lvextend -y -L +32M vg/a /dev/vda ${lvmConfig} >&2; lvm lvextend -y -L +32M vg/a /dev/vdb ${lvmConfig} >&2
lvm vgchange -ay vg ${lvmConfig} >&2; lvm vgscan --mknodes ${lvmConfig} >&2; echo /dev/mapper/vg-a`,
    down: `lvm vgchange -an vg ${lvmConfig} >&2; lvm vgremove -ff -y vg ${lvmConfig} >&2; lvm pvremove -ff -y /dev/vda /dev/vdb ${lvmConfig} >&2; dmsetup mknodes`,
    discard: true,
  },
  {
    name: 'md RAID 0',
    up: md('0', '/dev/vda /dev/vdb', '--chunk=64'),
    down: mdDown('/dev/vda /dev/vdb'),
    discard: true,
  },
  {
    name: 'md RAID 0 without statistics',
    up: `${md('0', '/dev/vda /dev/vdb', '--chunk=64')} >&2; echo 0 >/sys/block/md0/queue/iostats; echo /dev/md0`,
    down: mdDown('/dev/vda /dev/vdb'),
    discard: true,
  },
  {
    name: 'md RAID 1',
    up: md('1', '/dev/vda /dev/vdb', '--assume-clean --bitmap=none'),
    down: mdDown('/dev/vda /dev/vdb'),
    discard: true,
  },
  {
    name: 'md RAID 5',
    up: md('5', '/dev/vda /dev/vdb /dev/vdc', '--assume-clean --chunk=64 --bitmap=none'),
    down: mdDown('/dev/vda /dev/vdb /dev/vdc'),
    discard: false,
  },
  {
    name: 'zram',
    up: `modprobe zram num_devices=1; echo 1 >/sys/block/zram0/reset; echo 96M >/sys/block/zram0/disksize; echo /dev/zram0`,
    down: `echo 1 >/sys/block/zram0/reset`,
    discard: true,
  },
  {
    name: 'NBD',
    up: `modprobe nbd nbds_max=1 max_part=0; truncate -s 96M /tmp/nbd.img; nbdkit -U /tmp/nbd.sock --pidfile /tmp/nbd.pid file /tmp/nbd.img; nbd-client -unix /tmp/nbd.sock /dev/nbd0 >&2; echo /dev/nbd0`,
    down: `nbd-client -d /dev/nbd0 >&2; kill $(cat /tmp/nbd.pid); rm -f /tmp/nbd.img /tmp/nbd.sock`,
    discard: true,
  },
];

export function loadStackModules(): void {
  sh(
    `for m in dm-mod dm-crypt dm-snapshot dm-thin-pool raid0 raid1 raid456 md-mod loop xts ecb ext4 xfs; do modprobe $m || true; done; echo frozen > /dev/null`,
  );
}

/** Makes the device. Returns its path. */
export async function raise(stack: Stack): Promise<string> {
  return typeof stack.up === 'string' ? sh(stack.up).trim().split('\n').at(-1)! : stack.up();
}
