/**
 * Volume groups in the guest, which has no udev. An lvm.conf makes lvm2 create its device nodes by itself.
 */
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { sh } from './guest.ts';

/** The disks of the volume group. */
export const volumeDisks = [
  { bus: 'virtio', size: 512 << 20 },
  { bus: 'virtio', size: 512 << 20 },
] as const;

const directory = '/tmp/lvm-settings';

/** Applies to this process and its children, including the agent's calls of lvm2. */
export function useLvmWithoutUdev(): void {
  mkdirSync(directory, { recursive: true });
  writeFileSync(
    `${directory}/lvm.conf`,
    'activation { udev_sync=0 udev_rules=0 monitoring=0 }\n' +
      'devices { obtain_device_list_from_udev=0 use_devicesfile=0 }\n',
  );
  process.env['LVM_SYSTEM_DIR'] = directory;
}

/** Makes a volume with a filesystem and mounts it. Returns its path. `how`: arguments of lvcreate. */
export function makeVolume(name: string, how: string, type: 'ext4' | 'xfs'): string {
  const group = 'vg';
  sh(`lvm lvcreate --yes --wipesignatures n --name ${name} ${how}
mkfs.${type} -q ${type === 'xfs' ? '-f' : '-F'} /dev/mapper/${group}-${name}
mkdir -p /${name}; mount /dev/mapper/${group}-${name} /${name}`);
  return `/dev/mapper/${group}-${name}`;
}

/** Returns the volumes with the agent's tag. */
export function ourVolumes(): string[] {
  return sh('lvm lvs --all --noheadings -o lv_name,lv_tags')
    .split('\n')
    .filter((line) => /dattod/.test(line))
    .map((line) => line.trim());
}

/**
 * Returns true if a snapshot exists. It is quick, unlike `lvs`, so a test can call it again and again beside
 * a job in the same process.
 */
export function snapshotIsThere(): boolean {
  return readdirSync('/dev/mapper').some((name) => /^vg-dattod.*\d$/.test(name));
}
