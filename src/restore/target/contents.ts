/** Describes the contents of a destination in words, so that the user can see what a restore would overwrite. */
import { MiB, formatBytes, isZero } from '../../base/bytes.ts';
import { AgentError } from '../../base/errors.ts';
import type { ReadAt } from '../../block/source.ts';
import { readPartitionTable } from '../../filesystems/disk/partition-table.ts';
import { probe } from '../../filesystems/probe.ts';
import type { FilesystemIdentity } from '../../filesystems/used-map.ts';

/**
 * Returns a text like `ext4 "root" (UUID …)` or `a partition table (gpt) with 2 partitions: 1 vfat "ESP" of …`. Undefined if
 * nothing is found and the first MiB is all zeros or cannot be read.
 */
export async function describeContents(
  readAt: ReadAt,
  size: number,
  sectorSize: number,
): Promise<string | undefined> {
  const table = await readable(readPartitionTable(readAt, size, sectorSize));
  if (table !== undefined && (table.partitions.length > 0 || table.kind === 'gpt')) {
    const parts: string[] = [];
    for (const { number, start, size: bytes, label, container } of table.partitions.slice(0, 8)) {
      if (container) continue;
      const inside: ReadAt = (offset, length) => readAt(start + offset, length);
      const fits = start + bytes <= size;
      const filesystem = fits ? await readable(probe(inside, bytes)) : undefined;
      const what = filesystem === undefined ? (label ?? 'unknown') : identityText(filesystem);
      parts.push(`${number} ${what} of ${formatBytes(bytes)}`);
    }
    const more = table.partitions.length > 8 ? ', …' : '';
    const list = parts.length === 0 ? '' : `: ${parts.join(', ')}${more}`;
    return `a partition table (${table.kind}) with ${table.partitions.length} partitions${list}`;
  }
  const filesystem = await readable(probe(readAt, size));
  if (filesystem !== undefined) return identityText(filesystem);
  const start = await readable(readAt(0, Math.min(size, MiB)));
  return start === undefined || isZero(start) ? undefined : 'data of an unknown kind';
}

/** Returns a text like `ext4 "root" (UUID …)`. */
function identityText({ type, label, uuid }: FilesystemIdentity): string {
  const name = label === undefined || label === '' ? '' : ` "${label}"`;
  return `${type}${name}${uuid === undefined ? '' : ` (UUID ${uuid})`}`;
}

async function readable<T>(work: Promise<T>): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    const code = error instanceof AgentError ? error.code : undefined;
    if (code === 'DEVICE_READ_ERROR' || code === 'FILESYSTEM_UNREADABLE' || error instanceof RangeError)
      return undefined;
    throw error;
  }
}
