/** What is on a destination, in words, so that nobody overwrites what he did not mean. */
import { MiB, formatBytes, isZero } from '../../base/bytes.ts';
import { AgentError } from '../../base/errors.ts';
import type { ReadAt } from '../../block/source.ts';
import { readPartitionTable } from '../../filesystems/disk/partition-table.ts';
import { probe } from '../../filesystems/probe.ts';
import type { FilesystemIdentity } from '../../filesystems/used-map.ts';

/**
 * `ext4 "root" (UUID …)`, `a GPT with 2 partitions: 1 vfat "ESP", 2 xfs`. Undefined where the first MiB is all
 * zeros. What cannot be read hides what it holds.
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
  return start === undefined || isZero(start) ? undefined : 'data of a kind that is not known here';
}

/** `ext4 "root" (UUID …)`. */
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
