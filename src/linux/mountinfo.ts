/**
 * Reads /proc/PID/mountinfo (Documentation/filesystems/proc.rst, section 3.5). Mounts are identified by device number,
 * so renamed devices and bind mounts are correct. The parser is pure.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { decodeName } from '../base/file-name.ts';

export interface MountEntry {
  readonly id: number;
  readonly parentId: number;
  /** Device number of the filesystem's files (st_dev). Anonymous (major 0) for btrfs, tmpfs and similar ones. */
  readonly major: number;
  readonly minor: number;
  /** Path within the filesystem that is mounted here: `/`, except for bind mounts and subvolumes. */
  readonly root: string;
  readonly path: string;
  readonly type: string;
  /** Source of the mount: a device's path, or any text. */
  readonly source: string;
  /** This mount or the whole filesystem is read-only. */
  readonly readOnly: boolean;
  /** The filesystem itself is read-only, even if the mount is not. */
  readonly filesystemReadOnly: boolean;
  /** Options of the filesystem as the kernel writes them: `rw,lowerdir=/a,upperdir=/b`. */
  readonly superOptions: string;
}

/** Reads the mounts of the calling process's namespace, in the kernel's order. */
export async function readMounts(proc = '/proc'): Promise<MountEntry[]> {
  return parseMountinfo(await readFile(join(proc, 'self/mountinfo')));
}

/** Parses mountinfo. Lines that do not have the documented form are skipped. */
export function parseMountinfo(contents: Uint8Array): MountEntry[] {
  const entries: MountEntry[] = [];
  // One character per byte, because a name may be any bytes.
  for (const line of Buffer.from(contents).toString('latin1').split('\n')) {
    const [left, right] = line.split(' - ');
    if (left === undefined || right === undefined) continue;
    const [id, parent, device, root, path, options] = left.split(' ');
    const [type, source, superOptions] = right.split(' ');
    const numbers = /^(\d+):(\d+)$/.exec(device ?? '');
    if (numbers === null || root === undefined || path === undefined || type === undefined) continue;
    const filesystemReadOnly = takesNoWrites.some((option) => hasOption(superOptions, option));
    entries.push({
      id: Number(id),
      parentId: Number(parent),
      major: Number(numbers[1]),
      minor: Number(numbers[2]),
      root: nameOf(root),
      path: nameOf(path),
      type: nameOf(type),
      source: nameOf(source ?? ''),
      readOnly: filesystemReadOnly || hasOption(options, 'ro'),
      filesystemReadOnly,
      superOptions: nameOf(superOptions ?? ''),
    });
  }
  return entries;
}

/**
 * Super options of a filesystem that accepts no writes. After an error that makes it read-only, ext4 shows
 * `emergency_ro` and not `ro` (Linux 6.15, fs/ext4/super.c). ext4 and f2fs show `shutdown` after a forced shutdown.
 */
const takesNoWrites = ['ro', 'emergency_ro', 'shutdown'];

function nameOf(field: string): string {
  return decodeName(Buffer.from(unescapeOctal(field), 'latin1'));
}

/** The kernel writes space, tab, newline, backslash and `#` as three octal digits after a backslash. */
export function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}

function hasOption(options: string | undefined, option: string): boolean {
  return options?.split(',').includes(option) ?? false;
}

/**
 * Returns the mounts that can be reached by their path, in the same order. Mounts that a later mount covers are left
 * out.
 */
export function visibleMounts(entries: readonly MountEntry[]): MountEntry[] {
  const covered = new Set<number>();
  const byId = new Map(entries.map((entry) => [entry.id, entry]));
  for (const entry of entries) {
    const parent = byId.get(entry.parentId);
    // A mount whose parent has the same path lies on top of it.
    if (parent !== undefined && parent.path === entry.path && parent !== entry) covered.add(parent.id);
  }
  return entries.filter((entry) => !covered.has(entry.id));
}
