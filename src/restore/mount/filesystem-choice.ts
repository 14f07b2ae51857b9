/** Chooses the filesystem of an image to mount, and its mount options: read-only, without journal replay. */
import { formatBytes } from '../../base/bytes.ts';
import { AgentError } from '../../base/errors.ts';
import { readPartitionTable } from '../../filesystems/disk/partition-table.ts';
import { probe } from '../../filesystems/probe.ts';
import { type ImageReader, readAtOf, sliceOf } from '../image/image-reader.ts';

export interface FoundFilesystem {
  /** Undefined if the image has no partitions. */
  readonly partition: number | undefined;
  /** Bytes from the start of the image. */
  readonly offset: number;
  readonly size: number;
  /** The type as blkid names it; undefined if it is unknown. */
  readonly type: string | undefined;
  readonly uuid: string | undefined;
  readonly label: string | undefined;
}

/** A filesystem that can be mounted, with its mount options. */
export interface ChosenFilesystem extends FoundFilesystem {
  readonly type: string;
  readonly options: string;
}

/** Returns the filesystem of an image, or those of its partitions (not of extended ones). Throws the errors of reading. */
export async function findFilesystems(image: ImageReader, sectorSize: number): Promise<FoundFilesystem[]> {
  const table = await readPartitionTable(readAtOf(image), image.size, sectorSize);
  if (table === undefined || table.partitions.length === 0) {
    const found = await probe(readAtOf(image), image.size);
    const { type, uuid, label } = found ?? {};
    return [{ partition: undefined, offset: 0, size: image.size, type, uuid, label }];
  }
  if (table.problem !== undefined)
    throw new AgentError('FILESYSTEM_UNREADABLE', `${image.name}: ${table.problem}`);
  const found: FoundFilesystem[] = [];
  for (const { number, start, size, container, label } of table.partitions) {
    if (container) continue;
    const filesystem = await probe(readAtOf(sliceOf(image, start, size)), size);
    const { type, uuid } = filesystem ?? {};
    found.push({ partition: number, offset: start, size, type, uuid, label: filesystem?.label ?? label });
  }
  return found;
}

/**
 * Options of mount(8) by filesystem type. Only types that can be mounted without a write are here. ext needs `errors=`: an
 * ext image may itself ask for `panic` on damage (tune2fs -e, or -E mount_opts), and a damaged image must not crash the
 * machine. The superblocks of the other types have no such setting.
 */
const options: Readonly<Record<string, string>> = {
  ext2: 'ro,errors=continue',
  ext3: 'ro,noload,errors=continue',
  ext4: 'ro,noload,errors=continue',
  // Several recovery points of one filesystem have the same UUID.
  xfs: 'ro,norecovery,nouuid',
  btrfs: 'ro,rescue=nologreplay',
  f2fs: 'ro,norecovery',
  vfat: 'ro',
  exfat: 'ro',
  iso9660: 'ro',
  squashfs: 'ro',
  erofs: 'ro',
};

/** An old image must not offer setuid programs or device nodes to the users of the running system. */
const always = 'nosuid,nodev';

/** Returns the mount options; undefined if filesystems of this type cannot be mounted. */
export function mountOptions(type: string | undefined): string | undefined {
  const own = type === undefined || !Object.hasOwn(options, type) ? undefined : options[type];
  return own === undefined ? undefined : `${own},${always}`;
}

/** Returns the filesystem to mount. Throws BAD_USAGE with the choices, NOT_SUPPORTED if it cannot be mounted. */
export function chooseFilesystem(
  found: readonly FoundFilesystem[],
  partition: number | undefined,
  name: string,
): ChosenFilesystem {
  const mountable = found.filter(({ type }) => mountOptions(type) !== undefined);
  const chosen =
    partition === undefined
      ? found.length === 1
        ? found[0]
        : mountable.length === 1
          ? mountable[0]
          : undefined
      : found.find((each) => each.partition === partition);
  if (chosen === undefined) {
    const list = found.map(describe).join(', ');
    if (found[0]?.partition === undefined)
      throw new AgentError(
        'BAD_USAGE',
        `${name} has no partitions, so partition ${partition ?? ''} does not exist`,
      );
    throw new AgentError(
      'BAD_USAGE',
      partition === undefined
        ? `${name} has ${found.length} partitions, but none is chosen: ${list}`
        : `${name} has no partition ${partition}; it has ${list}`,
      { hint: 'choose one with --partition N' },
    );
  }
  const how = mountOptions(chosen.type);
  if (how === undefined || chosen.type === undefined)
    throw new AgentError(
      'NOT_SUPPORTED',
      `${name}${chosen.partition === undefined ? '' : `, partition ${chosen.partition}`} contains ${chosen.type ?? 'no known filesystem'}, which cannot be mounted directly`,
      { hint: 'export it, and use the tools of LVM, md or cryptsetup on the export' },
    );
  return { ...chosen, type: chosen.type, options: how };
}

function describe({ partition, type, label, size }: FoundFilesystem): string {
  const named = label === undefined || label === '' ? '' : ` "${label}"`;
  return `${partition ?? 0} (${type ?? 'unknown'}${named}, ${formatBytes(size)})`;
}
