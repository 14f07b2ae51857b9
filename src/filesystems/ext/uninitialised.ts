/**
 * Groups whose block bitmap is not on disk (BLOCK_UNINIT): what is used in them follows from the layout and
 * from every descriptor, for with flex_bg a bitmap or inode table may lie in another group than its own.
 *
 * One look through all descriptors finds out whether that happens at all (it hardly does); only then a second
 * one gathers what lies there. One bit per group is kept.
 */
import type { ReadAt } from '../../block/source.ts';
import { type GroupDescriptor, readDescriptors } from './descriptors.ts';
import { type BlockRange, fixedMetadata, groupOf, groupRange } from './layout.ts';
import type { ExtSuperblock } from './superblock.ts';

/** Groups looked at in one go; their descriptors are one read where the table is in one piece. */
const window = 4096;

/** What a look through all descriptors found. */
export interface Survey {
  /** The first thing that is wrong with a descriptor. */
  readonly problem: string | undefined;
  /** Metadata of other groups that lies in uninitialised groups, by group. */
  readonly foreign: ReadonlyMap<number, readonly BlockRange[]>;
}

export async function surveyDescriptors(
  sb: ExtSuperblock,
  readAt: ReadAt,
  signal: AbortSignal | undefined,
): Promise<Survey> {
  const uninitialised = new Uint8Array(sb.groups);
  const visited = new Uint8Array(sb.groups);
  const visit = (owner: number, start: number, count: number): void => {
    for (let group = groupOf(sb, start); group <= groupOf(sb, start + count - 1); group++)
      if (group !== owner) visited[group] = 1;
  };
  let problem: string | undefined;
  await eachDescriptor(sb, readAt, signal, (descriptor) => {
    problem ??= descriptor.problem;
    if (descriptor.problem !== undefined) return;
    if (descriptor.uninitialised) uninitialised[descriptor.group] = 1;
    const { group, blockBitmap, inodeBitmap, inodeTable } = descriptor;
    visit(group, blockBitmap, 1);
    visit(group, inodeBitmap, 1);
    visit(group, inodeTable, sb.inodeTableBlocks);
  });

  const foreign = new Map<number, BlockRange[]>();
  if (!visited.some((guest, group) => guest === 1 && uninitialised[group] === 1)) return { problem, foreign };
  await eachDescriptor(sb, readAt, signal, (descriptor) => {
    if (descriptor.problem !== undefined) return;
    for (const range of metadataOf(sb, descriptor))
      for (let group = groupOf(sb, range.start); group <= groupOf(sb, range.end - 1); group++)
        if (group !== descriptor.group && uninitialised[group] === 1)
          foreign.set(group, [...(foreign.get(group) ?? []), range]);
  });
  return { problem, foreign };
}

async function eachDescriptor(
  sb: ExtSuperblock,
  readAt: ReadAt,
  signal: AbortSignal | undefined,
  visit: (descriptor: GroupDescriptor) => void,
): Promise<void> {
  for (let first = 0; first < sb.groups; first += window) {
    signal?.throwIfAborted();
    const count = Math.min(window, sb.groups - first);
    for (const descriptor of await readDescriptors(sb, readAt, first, count)) visit(descriptor);
  }
}

function metadataOf(sb: ExtSuperblock, descriptor: GroupDescriptor): BlockRange[] {
  const { blockBitmap, inodeBitmap, inodeTable } = descriptor;
  return [
    { start: blockBitmap, end: blockBitmap + 1 },
    { start: inodeBitmap, end: inodeBitmap + 1 },
    { start: inodeTable, end: inodeTable + sb.inodeTableBlocks },
  ];
}

/** The used blocks of an uninitialised group, sorted and disjoint, widened to whole clusters. */
export function uninitialisedRanges(
  sb: ExtSuperblock,
  descriptor: GroupDescriptor,
  foreign: readonly BlockRange[],
): BlockRange[] {
  const group = groupRange(sb, descriptor.group);
  const ranges = [fixedMetadata(sb, descriptor.group), ...metadataOf(sb, descriptor), ...foreign]
    .map(({ start, end }) => ({
      start: Math.max(group.start, alignTo(Math.floor, start, group.start, sb.clusterBlocks)),
      end: Math.min(group.end, alignTo(Math.ceil, end, group.start, sb.clusterBlocks)),
    }))
    .filter(({ start, end }) => start < end)
    .sort((a, b) => a.start - b.start);
  const merged: BlockRange[] = [];
  for (const range of ranges) {
    const last = merged.at(-1);
    if (last !== undefined && range.start <= last.end)
      merged[merged.length - 1] = { start: last.start, end: Math.max(last.end, range.end) };
    else merged.push(range);
  }
  return merged;
}

function alignTo(round: (value: number) => number, block: number, origin: number, unit: number): number {
  return origin + round((block - origin) / unit) * unit;
}
