import assert from 'node:assert/strict';
import { test } from 'node:test';
import { descriptorBlock, fixedMetadata, groupOf, groupRange, hasSuperblock } from './layout.ts';
import { parseSuperblock, superblockProblem, type ExtSuperblock } from './superblock.ts';
import { MetadataMap, freeMetadata, uninitialisedRanges } from './metadata.ts';

/** Makes a superblock with blocks of 1 KiB, 8192 a group, unless `fields` says otherwise. */
function superblock(fields: Record<number, number>): ExtSuperblock {
  const bytes = Buffer.alloc(1024);
  const blocks = fields[0x04] ?? 100_000;
  const words = {
    0x00: Math.ceil((blocks - 1) / 8192) * 64,
    0x04: blocks,
    0x14: 1,
    0x20: 8192,
    0x24: 8192,
    0x28: 64,
    0x4c: 1,
    ...fields,
  };
  for (const [offset, value] of Object.entries(words)) bytes.writeUInt32LE(value, Number(offset));
  bytes.writeUInt16LE(0xef53, 0x38);
  bytes.writeUInt16LE(1, 0x3a);
  bytes.writeUInt16LE(fields[0x58] ?? 128, 0x58);
  return parseSuperblock(bytes)!;
}

test('copies of the superblock', () => {
  const groups = (sb: ExtSuperblock): number[] =>
    Array.from({ length: 50 }, (_, i) => i).filter((group) => hasSuperblock(sb, group));
  assert.equal(groups(superblock({})).length, 50);
  assert.deepEqual(groups(superblock({ 0x64: 1 })), [0, 1, 3, 5, 7, 9, 25, 27, 49]);
  assert.deepEqual(groups(superblock({ 0x5c: 0x200, 0x24c: 1, 0x250: 40 })), [0, 1, 40]);
});

test('groups, the last one shorter', () => {
  const sb = superblock({});
  assert.equal(sb.groups, 13);
  assert.deepEqual(groupRange(sb, 0), { start: 1, end: 8193 });
  assert.deepEqual(groupRange(sb, 12), { start: 98305, end: 100_000 });
  assert.equal(groupOf(sb, 8192), 0);
  assert.equal(groupOf(sb, 8193), 1);
});

test('the descriptor table in one piece, and by metagroups', () => {
  const whole = superblock({ 0x64: 1 });
  assert.equal(descriptorBlock(whole, 0), 2);
  assert.deepEqual(fixedMetadata(whole, 3), { start: 24577, end: 24577 + 1 + 1 });
  assert.deepEqual(fixedMetadata(whole, 4), { start: 32769, end: 32769 });

  const meta = superblock({ 0x64: 1, 0x60: 0x10, 0x104: 0, 0x04: 8192 * 100 });
  assert.equal(descriptorBlock(meta, 1), 1 + 32 * 8192, 'group 32 has no superblock');
  assert.deepEqual(fixedMetadata(meta, 33), { start: 1 + 33 * 8192, end: 2 + 33 * 8192 });
  assert.deepEqual(fixedMetadata(meta, 34), { start: 1 + 34 * 8192, end: 1 + 34 * 8192 });
  assert.deepEqual(fixedMetadata(meta, 63), { start: 1 + 63 * 8192, end: 2 + 63 * 8192 });
  assert.deepEqual(fixedMetadata(meta, 81), { start: 1 + 81 * 8192, end: 2 + 81 * 8192 });
});

test('an uninitialised group: its own metadata in it, and the metadata of other groups', () => {
  const sb = superblock({ 0x64: 1 });
  const metadata = new MetadataMap(
    Float64Array.of(100, 24500, 24600, 40_000),
    Float64Array.of(101, 24580, 24609, 40_001),
  );
  assert.deepEqual(uninitialisedRanges(sb, 3, metadata), [
    { start: 24577, end: 24580 },
    { start: 24600, end: 24601 + 8 },
  ]);
});

test('metadata that the runs of a group leave free', () => {
  const sb = superblock({ 0x64: 1 });
  const metadata = new MetadataMap(Float64Array.of(24500, 24600), Float64Array.of(24580, 24609));
  const free = (...runs: number[]): unknown => freeMetadata(sb, 3, metadata, runs);
  assert.equal(free(0, 8192), undefined);
  assert.equal(free(0, 3, 23, 32), undefined);
  assert.deepEqual(free(), { start: 24577, end: 24580 });
  assert.deepEqual(free(0, 2, 23, 32), { start: 24577, end: 24580 });
  assert.deepEqual(free(1, 32), { start: 24577, end: 24580 });
  assert.deepEqual(free(0, 3, 24, 32), { start: 24600, end: 24609 });
  assert.deepEqual(free(0, 3, 23, 31), { start: 24600, end: 24609 });
});

test('superblocks that contradict themselves', () => {
  const problem = (fields: Record<number, number>): string | undefined =>
    superblockProblem(superblock(fields), 200 * 1024 * 1024, 'idle');
  assert.equal(problem({}), undefined);
  assert.match(problem({ 0x18: 7 })!, /block size 131072/);
  assert.match(problem({ 0x20: 8193 })!, /8193 clusters per group/);
  assert.match(problem({ 0x20: 0 })!, /0 clusters per group/);
  assert.match(problem({ 0x00: 5 })!, /5 inodes, but 13 groups of 64/);
  assert.match(problem({ 0x150: 1 })!, /without the feature 64bit/);
  assert.match(problem({ 0x14: 100_000 })!, /first data block 100000 of 100000/);
  assert.match(problem({ 0x14: 0 })!, /first data block 0 of 100000, 1 is right for blocks of 1024 bytes/);
  assert.match(problem({ 0x28: 8200, 0x00: 8200 * 13 })!, /8200 inodes per group/);
  assert.match(problem({ 0x58: 96, 0x4c: 1 })!, /inodes of 96 bytes/);
  assert.match(problem({ 0x60: 0x80 })!, /group descriptors of 0 bytes/);
  assert.match(problem({ 0x64: 0x200, 0x1c: 0x1000 })!, /clusters/);
  assert.match(superblockProblem(superblock({}), 1000, 'idle')!, /102400000 bytes, but the device 1000/);
});
