/** Volume groups in the guest, which has no udev: lvm2 makes its device nodes by itself, told so by an lvm.conf. */
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { sh } from './guest.ts';

/** What the volume group is made of. */
export const volumeDisks = [
  { bus: 'virtio', size: 512 << 20 },
  { bus: 'virtio', size: 512 << 20 },
] as const;

const directory = '/tmp/lvm-settings';

/** For this process and its children, the agent's calls of lvm2 included. */
export function useLvmWithoutUdev(): void {
  mkdirSync(directory, { recursive: true });
  writeFileSync(
    `${directory}/lvm.conf`,
    'activation { udev_sync=0 udev_rules=0 monitoring=0 }\n' +
      'devices { obtain_device_list_from_udev=0 use_devicesfile=0 }\n',
  );
  process.env['LVM_SYSTEM_DIR'] = directory;
}

/** Makes a volume with a filesystem and mounts it; its path. `how`: arguments of lvcreate. */
export function makeVolume(name: string, how: string, type: 'ext4' | 'xfs'): string {
  const group = 'vg';
  sh(`lvm lvcreate --yes --wipesignatures n --name ${name} ${how}
mkfs.${type} -q ${type === 'xfs' ? '-f' : '-F'} /dev/mapper/${group}-${name}
mkdir -p /${name}; mount /dev/mapper/${group}-${name} /${name}`);
  return `/dev/mapper/${group}-${name}`;
}

/** The volumes with the agent's tag. */
export function ourVolumes(): string[] {
  return sh('lvm lvs --all --noheadings -o lv_name,lv_tags')
    .split('\n')
    .filter((line) => /dattod/.test(line))
    .map((line) => line.trim());
}

/** Quick, unlike `lvs`, so that it can be asked again and again beside a job in the same process. */
export function snapshotIsThere(): boolean {
  return readdirSync('/dev/mapper').some((name) => /^vg-dattod.*\d$/.test(name));
}
