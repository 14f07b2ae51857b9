/**
 * `diff POINT POINT`: the ranges of a device that differ between two points. The time needed grows with the changes
 * alone.
 */
import type { Command } from 'commander';
import { formatBytes } from '../../base/bytes.ts';
import { AgentError } from '../../base/errors.ts';
import type { Extent } from '../../base/extents.ts';
import { ImageMap } from '../../vault/maps/image-map.ts';
import { PointImage } from '../../vault/image.ts';
import { PartReader } from '../../vault/packs/part-reader.ts';
import { findDevice, isDeviceNamed } from '../../vault/points/find.ts';
import type { Point, PointDevice } from '../../vault/points/point.ts';
import { findPoint } from '../../vault/points/points.ts';
import type { Context } from '../context.ts';
import { localTime } from '../render/job.ts';
import { printable } from '../render/table.ts';
import type { VaultValues } from '../vault-options.ts';
import { withVault } from './session.ts';

interface Values extends VaultValues {
  readonly device?: string;
  readonly ranges?: true;
}

/** Sizes in bytes. */
export interface DiffDocument {
  from: string;
  to: string;
  /** Path in the first point and in the second point. */
  devices: [string, string];
  sizes: [number, number];
  /** In bytes. Ranges are multiples of this size. */
  chunk_size: number;
  changed_bytes: number;
  changed_ranges: number;
  /** With --ranges; otherwise null. */
  ranges: { offset: number; length: number }[] | null;
}

export async function showDiff(context: Context, self: Command): Promise<number> {
  const [first = '', second = ''] = self.args;
  const values = self.opts<Values>();
  const document = await withVault(context, self, async ({ vault, index, signal }) => {
    const from = await findPoint(vault, first, {}, { signal });
    const to = await findPoint(vault, second, {}, { signal });
    const a = findDevice(from, values.device);
    const b = sameDevice(to, a, values.device);
    const reader = new PartReader(vault, index(), { signal });
    const mapOf = (device: PointDevice) => new PointImage(reader, device, vault.chunkSize).map;
    const ranges: Extent[] = [];
    let bytes = 0;
    let count = 0;
    for await (const range of ImageMap.diff(mapOf(a), mapOf(b))) {
      signal.throwIfAborted();
      bytes += range.length;
      count++;
      if (values.ranges === true) ranges.push(range);
    }
    const result: DiffDocument = {
      from: from.id,
      to: to.id,
      devices: [a.path, b.path],
      sizes: [a.size, b.size],
      chunk_size: vault.chunkSize,
      changed_bytes: bytes,
      changed_ranges: count,
      ranges: values.ranges === true ? ranges.map(({ offset, length }) => ({ offset, length })) : null,
    };
    return { result, times: [from.finished, to.finished] };
  });
  const { result, times } = document;
  context.print(result, () => renderDiff(result, times));
  return 0;
}

/** Finds the same device in the second point: by filesystem or partition UUID, else by path. */
function sameDevice(point: Point, device: PointDevice, text: string | undefined): PointDevice {
  const uuids = [device.filesystem?.uuid, device.partition?.uuid].filter(
    (uuid) => uuid !== undefined && uuid !== '',
  );
  for (const uuid of uuids) {
    const found = point.devices.filter((each) => isDeviceNamed(each, `UUID=${uuid ?? ''}`));
    const [only, another] = found.length > 0 ? found : partitionsNamed(point, uuid);
    if (only !== undefined && another === undefined) return only;
  }
  const byPath = point.devices.find(({ path }) => path === device.path);
  if (byPath !== undefined && uuids.length === 0) return byPath;
  if (text !== undefined) return findDevice(point, text);
  throw new AgentError('DEVICE_NOT_FOUND', `The recovery point ${point.id} has no device ${device.path}`, {
    hint: `choose one of its devices: ${point.devices.map(({ path }) => path).join(', ')}`,
  });
}

function partitionsNamed(point: Point, uuid: string | undefined): PointDevice[] {
  return point.devices.filter((each) => isDeviceNamed(each, `PARTUUID=${uuid ?? ''}`));
}

function renderDiff(diff: DiffDocument, [first = '', second = '']: readonly string[]): string {
  const { devices, sizes, changed_bytes: bytes, changed_ranges: count } = diff;
  const lines = (diff.ranges ?? []).map(({ offset, length }) => `${offset} ${length}\n`);
  const grown = sizes[0] === sizes[1] ? '' : `, and its size changed from ${sizes[0]} to ${sizes[1]} bytes`;
  const what =
    count === 0
      ? 'no difference'
      : `${formatBytes(bytes)} in ${count} ${count === 1 ? 'range' : 'ranges'} differ, in chunks of ${formatBytes(diff.chunk_size)}`;
  return `${lines.join('')}${printable(devices[1])}, ${localTime(first)} to ${localTime(second)}: ${what}${grown}\n`;
}
