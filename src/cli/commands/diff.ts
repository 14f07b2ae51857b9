/**
 * `diff POINT POINT`: the ranges of a device that differ between two points. The time needed grows with the changes
 * alone.
 */
import type { DiffDocument } from '../../api/vault/output/points.ts';
import { Command } from 'commander';
import { formatBytes } from '../../base/bytes.ts';
import type { Extent } from '../../base/extents.ts';
import type { PointDevice } from '../../vault/points/point.ts';
import type { Context, Run } from '../context.ts';
import { localTime } from '../render/local-time.ts';
import { printable } from '../render/table.ts';
import { type VaultValues, addDeviceOption, addVaultOptions, pointArgument } from '../vault/options.ts';
import { withVault } from '../vault/session.ts';

interface Values extends VaultValues {
  readonly device?: string;
  readonly ranges?: true;
}

export function diff(run: Run): Command {
  const command = new Command('diff')
    .description('Shows how much of a device differs between two recovery points, and in which ranges.')
    .argument(...pointArgument)
    .argument('<other>', 'the other point');
  addDeviceOption(command).option(
    '--ranges',
    'list the ranges that differ: offset and length in bytes, one range per line',
  );
  return addVaultOptions(command).action(run(showDiff));
}

async function showDiff(context: Context, self: Command): Promise<number> {
  const { ImageMap, PartReader, PointImage, findDevice, findPoint, findSameDevice } =
    await import('../vault/library.ts');
  const [first = '', second = ''] = self.args;
  const values = self.opts<Values>();
  const document = await withVault(context, self, async ({ vault, index, signal }) => {
    const from = await findPoint(vault, first, {}, { signal });
    const to = await findPoint(vault, second, {}, { signal });
    const a = findDevice(from, values.device);
    const b = findSameDevice(to, a, values.device);
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
