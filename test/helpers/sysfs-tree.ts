/**
 * Writes the parts of /sys and /proc that the inventory reads, for device stacks that a test machine cannot
 * make.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

export interface FakeBlockDevice {
  readonly name: string;
  /** Device numbers, such as `8:0`. */
  readonly dev: string;
  /** In sectors of 512 bytes, as in sysfs. */
  readonly size: number;
  readonly partitions?: readonly (FakeBlockDevice & { readonly start: number })[];
  readonly slaves?: readonly string[];
  readonly holders?: readonly string[];
  /** Further attribute files, path below the device's directory to contents. */
  readonly attributes?: Readonly<Record<string, string>>;
}

/** Makes `root/block`, with attributes as the kernel writes them (newline at the end). */
export function writeSysfs(root: string, devices: readonly FakeBlockDevice[]): void {
  mkdirSync(join(root, 'block'), { recursive: true });
  for (const device of devices) {
    const directory = join(root, 'block', device.name);
    writeDevice(directory, device, {
      'queue/logical_block_size': '512',
      'queue/physical_block_size': '4096',
      removable: '0',
      hidden: '0',
      diskseq: '9',
    });
    for (const [index, partition] of (device.partitions ?? []).entries())
      writeDevice(join(directory, partition.name), partition, {
        partition: String(index + 1),
        start: String(partition.start),
      });
  }
}

function writeDevice(
  directory: string,
  device: FakeBlockDevice,
  attributes: Readonly<Record<string, string>>,
): void {
  const all = { dev: device.dev, size: String(device.size), ro: '0', ...attributes, ...device.attributes };
  for (const [name, contents] of Object.entries(all)) {
    const path = join(directory, name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, `${contents}\n`);
  }
  for (const kind of ['holders', 'slaves'] as const) {
    mkdirSync(join(directory, kind), { recursive: true });
    for (const name of device[kind] ?? []) mkdirSync(join(directory, kind, name));
  }
}

/** Makes `root/self/mountinfo` and `root/swaps`. */
export function writeProc(root: string, mountinfo: string, swaps = ''): void {
  mkdirSync(join(root, 'self'), { recursive: true });
  writeFileSync(join(root, 'self/mountinfo'), mountinfo);
  writeFileSync(join(root, 'swaps'), `Filename\tType\tSize\tUsed\tPriority\n${swaps}`);
}
