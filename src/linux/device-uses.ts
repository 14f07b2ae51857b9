/** Finds how a block device is used. An open with O_EXCL that fails with EBUSY does not report this. */
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { unlessAbsent } from '../base/files.ts';
import { unescapeOctal, readMounts } from './mountinfo.ts';
import { readBlockDevices } from './sysfs.ts';

/** Splits a device number from Node's `stat.rdev` or `stat.dev` (the C library's encoding, gnu_dev_major). */
export function splitDeviceNumber(dev: number): { major: number; minor: number } {
  const wide = BigInt(dev);
  return {
    major: Number(((wide >> 8n) & 0xfffn) | ((wide >> 32n) & 0xfffff000n)),
    minor: Number((wide & 0xffn) | ((wide >> 12n) & 0xffffff00n)),
  };
}

/**
 * Returns the uses of the device and of its partitions, as text for users: `mounted on /srv`, `active swap`,
 * `in use by dm-0`, `sda2 is mounted on /`. Empty if none is known.
 */
export async function describeUses(
  device: { major: number; minor: number },
  roots: { sys?: string; proc?: string } = {},
): Promise<string[]> {
  const [devices, mounts, swaps] = await Promise.all([
    readBlockDevices(roots.sys),
    readMounts(roots.proc),
    readSwaps(roots.proc),
  ]);
  const own = devices.find((each) => each.major === device.major && each.minor === device.minor);
  const uses: string[] = [];
  for (const each of devices) {
    const itself = each.name === own?.name;
    if (!itself && each.partition?.disk !== own?.name) continue;
    const subject = itself ? '' : `${each.name} is `;
    for (const mount of mounts)
      if (mount.major === each.major && mount.minor === each.minor)
        uses.push(`${subject}mounted on ${mount.path}`);
    if (swaps.some((swap) => swap.major === each.major && swap.minor === each.minor))
      uses.push(`${subject}active swap`);
    for (const holder of each.holders) {
      const name = devices.find((other) => other.name === holder)?.dm?.name;
      uses.push(`${subject}in use by ${holder}${name === undefined ? '' : ` (${name})`}`);
    }
  }
  return uses;
}

/** Returns the paths of files and devices that the kernel swaps to. */
export async function swapPaths(proc = '/proc'): Promise<string[]> {
  const text = await readFile(join(proc, 'swaps'), 'utf8').catch(() => '');
  const names = text
    .split('\n')
    .slice(1)
    .map((line) => line.split(/\s+/)[0] ?? '');
  return names.filter((name) => name.startsWith('/')).map(unescapeOctal);
}

/** Returns the block devices that the kernel swaps to. */
async function readSwaps(proc = '/proc'): Promise<{ major: number; minor: number }[]> {
  const swaps = join(proc, 'swaps');
  const text = (await unlessAbsent(swaps, readFile(swaps, 'utf8'))) ?? '';
  const found: { major: number; minor: number }[] = [];
  for (const line of text.split('\n').slice(1)) {
    const [path, type] = line.split(/\s+/);
    if (path === undefined || type !== 'partition') continue;
    const node = await stat(unescapeOctal(path)).catch(() => undefined);
    if (node?.isBlockDevice() === true) found.push(splitDeviceNumber(node.rdev));
  }
  return found;
}
