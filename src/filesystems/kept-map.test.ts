/**
 * Kept maps over synthetic XFS of both versions, which not every kernel mounts; real ones:
 * test/integration/kept-map.test.ts.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MiB } from '../base/bytes.ts';
import { Bitmap } from '../base/bitmap.ts';
import { DeviceVersions, keptEqualsWhole } from '../../test/helpers/device-versions.ts';
import { seeded } from '../../test/helpers/random.ts';
import { type SyntheticOptions, syntheticXfs } from '../../test/helpers/synthetic-xfs.ts';
import { KeptMap } from './kept-map.ts';
import { markUsed } from './mark-used.ts';

const runs = Number(process.env['KEPT_MAP_RUNS'] ?? 15);

const layouts: readonly (SyntheticOptions & { readonly name: string })[] = [
  { name: 'version 5', version: 5, fanout: 4 },
  { name: 'version 4', version: 4, fanout: 4 },
  { name: 'blocks of 1 KiB', version: 5, blockSize: 1024, agBlocks: 4099, fanout: 8 },
  { name: 'version 4, sectors of 4 KiB', version: 4, sectorSize: 4096, agBlocks: 1021 },
];

for (const { name, ...layout } of layouts)
  test(`XFS, ${name}: a kept map equals a whole reading`, async (t) => {
    const versions = await history(layout);
    const { runs: done, groups, groupsRead, whole } = await keptEqualsWhole(versions, runs);
    t.diagnostic(`${done} histories; ${groupsRead} of ${groups} groups read, ${whole} times all of them`);
    assert.ok(groupsRead < groups, 'most groups need not be read');
  });

test('a group is read again if its tree changed and its AGF did not, or if only its AGF changed', async (t) => {
  const layout = { version: 5, agBlocks: 1024, blocks: 4096 } as const;
  const at = (start: number) => ({ ...layout, free: () => [[start, 10] as const] });
  const made = syntheticXfs(at(900));
  const other = syntheticXfs(at(950));
  const group = 2;
  const agf = group * layout.agBlocks * made.blockSize + 512;
  const root = made.treeBlocks.get(group)![0]!;
  const moved = root + 100 * made.blockSize;
  const changes = {
    'the same extents in number, elsewhere': () => {
      made.pieces.get(root)!.set(other.pieces.get(root)!);
    },
    'a root in another block': () => {
      const block = Buffer.from(made.pieces.get(root)!);
      block.writeBigUInt64BE(BigInt(moved / 512), 16);
      block.writeUInt32BE(970, 56);
      (made.pieces as Map<number, Buffer>).set(moved, block);
      made.seal(moved, 'tree');
      const sector = made.pieces.get(agf)!;
      sector.writeUInt32BE(sector.readUInt32BE(16) + 100, 16);
      made.seal(agf, 'agf');
    },
  };
  const bitmap = new Bitmap(made.size, made.blockSize);
  const kept = new KeptMap(bitmap);
  const before = await kept.read(made.readAt, 512, { state: 'live' }, undefined);
  assert.deepEqual([before.groups, before.groupsRead], [4, 4]);
  for (const [name, change] of Object.entries(changes))
    await t.test(name, async () => {
      change();
      const written = new Bitmap(made.size, 512);
      const place = name.startsWith('a root') ? agf : root;
      written.mark(place, 1);
      const { groupsRead } = await kept.read(made.readAt, 512, { state: 'live' }, written);
      const whole = new Bitmap(made.size, made.blockSize);
      await markUsed(whole, made.readAt, made.size, 512, { state: 'live' });
      assert.equal(groupsRead, 1);
      assert.deepEqual([...bitmap.extents()], [...whole.extents()]);
    });
});

/** Makes versions of a device, each with other free extents in some of its groups. */
async function history(layout: SyntheticOptions): Promise<DeviceVersions> {
  const { agBlocks = 1024, blockSize = 4096 } = layout;
  // The log is 2 MiB.
  const reserved = 200 + (2 * MiB) / blockSize;
  const random = seeded(agBlocks);
  const free: (readonly (readonly [number, number])[])[] = [];
  let versions: DeviceVersions | undefined;
  for (let version = 0; version < 6; version++) {
    const made = syntheticXfs({
      ...layout,
      agBlocks,
      blocks: agBlocks * 12 + 1000,
      free: (group, length) =>
        (free[group] =
          free[group] === undefined || random() < 0.15 ? someExtents(random, length, reserved) : free[group]),
    });
    versions ??= new DeviceVersions(made.size);
    await versions.add(made.readAt);
  }
  return versions!;
}

function someExtents(
  random: () => number,
  length: number,
  reserved: number,
): readonly (readonly [number, number])[] {
  const extents: (readonly [number, number])[] = [];
  for (let at = reserved; ;) {
    const start = at + 1 + Math.floor(random() * 20);
    const count = 1 + Math.floor(random() * 40);
    if (start + count > length) return extents;
    extents.push([start, count]);
    at = start + count;
  }
}
