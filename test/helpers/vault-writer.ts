/**
 * A light writer of recovery points, without devices and threads. An image is given by the numbers and bytes
 * of its chunks. It follows "Writing a point" of docs/formats/vault.md with the vault's own parts.
 */
import { AgentError } from '../../src/base/errors.ts';
import type { ChunkIndex } from '../../src/vault/index/chunk-index.ts';
import { buildMap } from '../../src/vault/maps/build.ts';
import { ImageMap, namesIn } from '../../src/vault/maps/image-map.ts';
import { Namer, nameLength } from '../../src/vault/names.ts';
import { PackWriter } from '../../src/vault/packs/pack-writer.ts';
import { PartReader } from '../../src/vault/packs/part-reader.ts';
import type { Point, PointDevice } from '../../src/vault/points/point.ts';
import { readPoint } from '../../src/vault/points/points.ts';
import type { Vault } from '../../src/vault/vault.ts';
import type { Owner } from '../../src/vault/writing/owner.ts';
import { WriterSession } from '../../src/vault/writing/writer-session.ts';

/** An image: the chunks that are not all zeros, by their number. */
export type TestImage = ReadonlyMap<number, Buffer>;

export interface TestBackup {
  readonly image: TestImage;
  /** Bytes of the device. */
  readonly size: number;
  /** The point to build on. If it cannot serve as a base, everything is stored. */
  readonly base?: TestBase | undefined;
  readonly owner?: Owner | undefined;
  readonly path?: string;
  readonly finished?: Date;
  /** Called right before the point is put. */
  readonly onPublish?: (point: Point) => void;
}

/**
 * An earlier point, as its writer knows it. Like a chain record, it has the map itself: if random numbers repeat, the
 * vault may have another point with this ID later.
 */
export interface TestBase {
  readonly id: string;
  readonly image: TestImage;
  readonly device: PointDevice;
}

export async function backUp(vault: Vault, index: ChunkIndex, backup: TestBackup): Promise<Point> {
  const session = await WriterSession.begin(vault, index, { owner: backup.owner });
  try {
    const device = await storeImage(vault, index, session, backup);
    const point = pointOf(session.id, [device], backup.finished);
    backup.onPublish?.(point);
    await session.publish(point);
    await session.end();
    return point;
  } catch (error) {
    // If it is unknown whether the point may still appear, the data that it needs stays protected.
    if (session.mayStillAppear) session.abandon();
    else await session.end().catch(() => undefined);
    throw error;
  }
}

async function storeImage(
  vault: Vault,
  index: ChunkIndex,
  session: WriterSession,
  backup: TestBackup,
): Promise<PointDevice> {
  const { size, image } = backup;
  const packs = (kind: 'chunks' | 'pages'): PackWriter =>
    new PackWriter(vault, index, { kind, writer: session.id, condemned: session.condemned });
  const earlier = await usableBase(vault, index, session, backup);
  const before: TestImage = earlier === undefined ? new Map() : backup.base!.image;
  const changed = [...new Set([...before.keys(), ...image.keys()])].filter(
    (chunk) => before.get(chunk) !== image.get(chunk),
  );

  const names = new Map<number, Buffer>();
  const namer = new Namer(vault.secrets.chunkNameKey);
  const chunks = packs('chunks');
  for (const chunk of changed.sort((a, b) => a - b)) {
    const data = image.get(chunk);
    const name = data === undefined ? Buffer.alloc(nameLength, 0xff) : Buffer.from(namer.name(data));
    names.set(chunk, name);
    if (data !== undefined) await chunks.add(name, data);
  }
  await chunks.seal();

  const pages = packs('pages');
  const { chunkSize } = vault;
  const built = await buildMap({
    base: earlier,
    size,
    chunkSize,
    touched: changed.map((chunk) => ({ offset: chunk * chunkSize, length: chunkSize })),
    changed: (first, count) => {
      const result = Buffer.alloc(count * nameLength);
      for (const [chunk, name] of names)
        if (chunk >= first && chunk < first + count) name.copy(result, (chunk - first) * nameLength);
      return result;
    },
    namer: new Namer(vault.secrets.pageNameKey),
    pages,
  });
  await pages.seal();
  return deviceOf(
    backup.path ?? '/dev/test',
    size,
    built.root.toString('hex'),
    built.levels,
    image.size * chunkSize,
  );
}

async function usableBase(
  vault: Vault,
  index: ChunkIndex,
  session: WriterSession,
  { base, size }: TestBackup,
): Promise<ImageMap | undefined> {
  if (base === undefined) return undefined;
  const point = await readPoint(vault, base.id).catch((error: unknown) => {
    if (error instanceof AgentError && error.code === 'POINT_NOT_FOUND') return undefined;
    throw error;
  });
  const { device } = base;
  if (point === undefined || !(await session.keep(device))) return undefined;
  const root = Buffer.from(device.root, 'hex');
  return new ImageMap(new PartReader(vault, index), {
    root,
    levels: device.levels,
    size,
    chunkSize: vault.chunkSize,
  });
}

function pointOf(id: string, devices: readonly PointDevice[], finished = new Date()): Point {
  return {
    format: 1,
    id,
    finished: finished.toISOString(),
    started: finished.toISOString(),
    job: '00000000-0000-4000-8000-000000000000',
    kind: 'full',
    agent: '1.0.0',
    machine: { id: 'f'.repeat(32), name: 'test', boot: 'uefi', layout: {} },
    warnings: [],
    devices,
  };
}

function deviceOf(path: string, size: number, root: string, levels: number, used: number): PointDevice {
  return {
    path,
    size,
    sector_size: 512,
    filesystem: null,
    partition: null,
    root,
    levels,
    used_bytes: Math.min(used, size),
    stored_bytes: 0,
    freeze_ms: 0,
    consistency: 'idle',
    tracker: 'none',
    kind: 'full',
    read_errors: [],
    read_only: false,
  };
}

/** Returns the chunks of a point's device that are not all zeros, read through the vault. */
export async function readBack(
  vault: Vault,
  from: ChunkIndex | PartReader,
  device: PointDevice,
): Promise<Map<number, Buffer>> {
  const reader = from instanceof PartReader ? from : new PartReader(vault, from);
  const { levels, size } = device;
  const map = new ImageMap(reader, {
    root: Buffer.from(device.root, 'hex'),
    levels,
    size,
    chunkSize: vault.chunkSize,
  });
  const image = new Map<number, Buffer>();
  for await (const { firstChunk, names } of map.leaves()) {
    const wanted = namesIn(names);
    const data = await reader.getMany(wanted.map(({ name }) => name));
    wanted.forEach(({ entry }, at) => image.set(firstChunk + entry, data[at]!));
  }
  return image;
}
