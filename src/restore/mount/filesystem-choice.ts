/** Which filesystem of an image is mounted, and how: read-only, and without replaying its journal. */
import { formatBytes } from '../../base/bytes.ts';
import { AgentError } from '../../base/errors.ts';
import { readPartitionTable } from '../../filesystems/disk/partition-table.ts';
import { probe } from '../../filesystems/probe.ts';
import { type ImageReader, readAtOf, sliceOf } from '../image/image-reader.ts';

export interface FoundFilesystem {
  /** Undefined where the image has no partitions. */
  readonly partition: number | undefined;
  /** Bytes from the start of the image. */
  readonly offset: number;
  readonly size: number;
  /** blkid's name; undefined where it is unknown. */
  readonly type: string | undefined;
  readonly uuid: string | undefined;
  readonly label: string | undefined;
}

/** One that can be mounted, with the options for it. */
export interface ChosenFilesystem extends FoundFilesystem {
  readonly type: string;
  readonly options: string;
}

/** The filesystems of an image: its own, or those of its partitions (containers excluded). Throws what reading throws. */
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
 * Options of mount(8) by type. Types that are no filesystem, or cannot be mounted without being written, are not here. What
 * the kernel does when it meets damage is an option of the mount too. An image of ext may bring its own (`panic`: tune2fs -e, or
 * -E mount_opts), and damage of an image must not end the machine. The other types have none in their superblocks.
 */
const options: Readonly<Record<string, string>> = {
  ext2: 'ro,errors=continue',
  ext3: 'ro,noload,errors=continue',
  ext4: 'ro,noload,errors=continue',
  // Several points of one filesystem have one UUID.
  xfs: 'ro,norecovery,nouuid',
  btrfs: 'ro,rescue=nologreplay',
  f2fs: 'ro,norecovery',
  vfat: 'ro',
  exfat: 'ro',
  iso9660: 'ro',
  squashfs: 'ro',
  erofs: 'ro',
};

/** Nothing of an old image is to become a door into the running system. */
const always = 'nosuid,nodev';

/** Undefined where filesystems of this type are not mounted here. */
export function mountOptions(type: string | undefined): string | undefined {
  const own = type === undefined || !Object.hasOwn(options, type) ? undefined : options[type];
  return own === undefined ? undefined : `${own},${always}`;
}

/** The one that is meant. Throws BAD_USAGE naming the choices, NOT_SUPPORTED for what cannot be mounted. */
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
        `${name} has no partitions, so there is no partition ${partition ?? ''}`,
      );
    throw new AgentError(
      'BAD_USAGE',
      partition === undefined
        ? `${name} holds ${found.length} partitions, and it has to be said which: ${list}`
        : `${name} has no partition ${partition}; it has ${list}`,
      { hint: 'say which with --partition N' },
    );
  }
  const how = mountOptions(chosen.type);
  if (how === undefined || chosen.type === undefined)
    throw new AgentError(
      'NOT_SUPPORTED',
      `${name}${chosen.partition === undefined ? '' : `, partition ${chosen.partition}`} holds ${chosen.type ?? 'nothing that is known here'}, which cannot be mounted by itself`,
      { hint: 'export it, and let the tools of LVM, md or cryptsetup have it' },
    );
  return { ...chosen, type: chosen.type, options: how };
}

function describe({ partition, type, label, size }: FoundFilesystem): string {
  const named = label === undefined || label === '' ? '' : ` "${label}"`;
  return `${partition ?? 0} (${type ?? 'unknown'}${named}, ${formatBytes(size)})`;
}
