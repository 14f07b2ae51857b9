/**
 * Proves an image through a read-only loop device. Each filesystem on it is checked by its own checker without repairs,
 * mounted read-only, and compared with the list that was made at the freeze.
 */
import { mkdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { Cleanup } from './cleanup.ts';
import type { FrozenList } from './frozen-list.ts';
import { command, detachLoop, tryCommand, unmount } from './processes.ts';

export interface Proof {
  readonly proven: boolean;
  /** The results of the checks, one line each. */
  readonly findings: readonly string[];
}

/** The commands to check and mount a filesystem without writing. `mount` is undefined if mounting is not safe. */
interface Method {
  readonly check: readonly string[];
  readonly mount: string | undefined;
}

const ext: Method = { check: ['e2fsck', '-f', '-n'], mount: 'ro' };
const methods: Partial<Record<string, Method>> = {
  ext2: ext,
  ext3: ext,
  ext4: ext,
  // XFS refuses to mount a second filesystem with the UUID of a mounted one, unless nouuid is given.
  xfs: { check: ['xfs_repair', '-n'], mount: 'ro,nouuid,norecovery' },
  vfat: { check: ['fsck.fat', '-n'], mount: 'ro' },
  // btrfs identifies filesystems by UUID, so it confuses a mounted copy with its original.
  btrfs: { check: ['btrfs', 'check', '--readonly'], mount: undefined },
};

/** Checks the image and compares each filesystem that can be mounted with `list`, which was made at the freeze. */
export async function proveImage(
  image: string,
  list: FrozenList | undefined,
  directory: string,
  cleanup: Cleanup,
): Promise<Proof> {
  const loop = await command('losetup', ['--find', '--show', '--read-only', '--partscan', image]);
  cleanup.add(`detach ${loop}`, () => detachLoop(loop, image));
  const findings: string[] = [];
  let proven = true;
  const say = (right: boolean, finding: string) => {
    proven &&= right;
    findings.push(`${right ? 'ok   ' : 'WRONG'} ${finding}`);
  };

  let known = 0;
  for (const device of await withPartitions(loop)) {
    const { output: type } = await tryCommand('blkid', ['-p', '-s', 'TYPE', '-o', 'value', device]);
    const method = methods[type];
    if (method === undefined) {
      if (type !== '') findings.push(`--    ${basename(device)}: no checker for ${type} here`);
      continue;
    }
    known++;
    say(...(await check(device, type, method)));
    if (method.mount !== undefined) await compareMounted(device, method.mount, list, directory, cleanup, say);
  }
  if (known === 0) say(false, 'no filesystem was found that could be checked');
  return { proven, findings };
}

/** Returns the partitions of the loop device, or the loop device itself if it has none. */
async function withPartitions(loop: string): Promise<string[]> {
  await tryCommand('udevadm', ['settle', '--timeout=5']).catch(() => undefined);
  const lines = (await command('lsblk', ['--noheadings', '--list', '--output', 'PATH', loop])).split('\n');
  return lines.length > 1 ? lines.slice(1) : [loop];
}

async function check(device: string, type: string, method: Method): Promise<[boolean, string]> {
  const [program, ...flags] = method.check;
  const { code, output } = await tryCommand(program!, [...flags, device], { interruptible: true });
  const name = `${type}: ${method.check.join(' ')}`;
  if (code === 0) return [true, `${name} finds nothing to mend`];
  const orphans = method === ext ? openAndDeleted(output) : 0;
  if (orphans > 0)
    return [true, `${name} finds ${orphans} files that were deleted while still open, as on the source`];
  if (type === 'xfs' && onlyFrozen(output))
    return [
      true,
      `${name} finds nothing to mend but what every freeze leaves: a record in the log, a free count`,
    ];
  return [false, `${name} says (exit code ${code ?? '?'}):\n${output}`];
}

/**
 * Returns the number of orphans in the output of e2fsck -n, or 0 if the output reports any other problem. A file that
 * is deleted while a program holds it open stays on disk as an orphan until it is closed. So a perfect image of a
 * filesystem in use has orphans, and the next mount removes them. e2fsck -n lists each orphan, and then reports
 * differences in the bitmaps and counts because of it.
 */
export function openAndDeleted(output: string): number {
  const known =
    /^(e2fsck .*|Pass \d.*|Fix\? no|(Block|Inode) bitmap differences: .*|(Free|Directories) .*count wrong.*|.*\*\*\* WARNING: Filesystem still has errors .*|.*: \d+\/\d+ files .*|Deleted inode \d+ has zero dtime\. {2}Fix\? no|)$/;
  const lines = output.split('\n').map((line) => line.trimEnd());
  return lines.every((line) => known.test(line))
    ? lines.filter((line) => line.startsWith('Deleted inode')).length
    : 0;
}

/**
 * Returns whether the output of xfs_repair -n reports only the two effects of every freeze. A freeze logs the
 * superblock once more, and its free count leaves out the blocks that the kernel holds in reserve (docs/formats/xfs.md,
 * "Idle, frozen, live").
 */
export function onlyFrozen(output: string): boolean {
  const known =
    /^(Phase \d.*|\s+- .*|ALERT: The filesystem has valuable metadata changes in a log which is being|ignored because the -n option was used\. .*|which may be resolved by first mounting the filesystem to replay the log\.|sb_fdblocks \d+, counted \d+|No modify flag set, .*|)$/;
  return output.split('\n').every((line) => known.test(line.trimEnd()));
}

async function compareMounted(
  device: string,
  options: string,
  list: FrozenList | undefined,
  directory: string,
  cleanup: Cleanup,
  say: (right: boolean, finding: string) => void,
): Promise<void> {
  const mountPoint = join(directory, `image-${basename(device)}`);
  mkdirSync(mountPoint, { recursive: true });
  const { code, output } = await tryCommand('mount', ['-o', options, device, mountPoint]);
  if (code !== 0) {
    say(false, `it cannot be mounted (-o ${options}): ${output}`);
    return;
  }
  cleanup.add(`unmount ${mountPoint}`, () => unmount(mountPoint));
  say(true, `it mounts (-o ${options})`);
  if (list === undefined) return;
  const { files, differences } = await list.compare(mountPoint);
  const shown = differences.slice(0, 10).join('\n      ');
  if (differences.length > 0)
    say(false, `${differences.length} differences from the source at the freeze:\n      ${shown}`);
  else say(true, `${files} files are byte for byte those of the source at the freeze`);
}
