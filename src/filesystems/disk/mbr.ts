/**
 * Reads MBR ("dos") partition tables with extended and logical partitions, numbered as Linux does
 * (block/partitions/msdos.c, libblkid/src/partitions/dos.c).
 *
 * Sector 0: 440 disk identifier, 446 four entries of 16 bytes, 510 0x55 0xAA. Entry: 0 boot indicator (0 or 0x80), 4
 * type, 8 first sector, 12 number of sectors. An extended partition begins with a sector of the same structure (EBR):
 * data entries count from this sector, the link to the next EBR from the extended partition.
 */
import type { ReadAt } from '../../block/source.ts';
import type { Partition, PartitionTable } from './partition.ts';
import { type NamedRange, rangeProblem } from './ranges.ts';

export interface MbrEntry {
  readonly type: number;
  /** Sectors. */
  readonly start: number;
  readonly sectors: number;
}

export interface Mbr {
  readonly identifier: number;
  readonly entries: readonly MbrEntry[];
}

const extendedTypes: ReadonlySet<number> = new Set([0x05, 0x0f, 0x85]);
const protectiveType = 0xee;
/** The most links in a chain of logical partitions. */
const longestChain = 256;

/** Returns undefined if sector 0 is not a table: no signature, or an impossible boot indicator. */
export function parseMbr(sector: Buffer): Mbr | undefined {
  if (sector[510] !== 0x55 || sector[511] !== 0xaa) return undefined;
  const offsets = [446, 462, 478, 494];
  if (offsets.some((at) => sector[at] !== 0 && sector[at] !== 0x80)) return undefined;
  return {
    identifier: sector.readUInt32LE(440),
    entries: offsets.map((at) => ({
      type: sector[at + 4]!,
      start: sector.readUInt32LE(at + 8),
      sectors: sector.readUInt32LE(at + 12),
    })),
  };
}

/** Returns true if any entry has type 0xEE. A hybrid MBR counts too: then the GPT decides, as in Linux. */
export function isProtective(mbr: Mbr): boolean {
  return mbr.entries.some((entry) => entry.type === protectiveType);
}

export async function readMbr(
  readAt: ReadAt,
  deviceSize: number,
  sectorSize: number,
  mbr: Mbr,
): Promise<PartitionTable> {
  const partitions: Partition[] = [];
  const tableSectors: { offset: number; length: number }[] = [];
  const add = (number: number, entry: MbrEntry, start: number): void => {
    partitions.push({
      number,
      start: start * sectorSize,
      size: entry.sectors * sectorSize,
      uuid: partitionUuid(mbr.identifier, number),
      label: undefined,
      type: `0x${entry.type.toString(16)}`,
      container: number <= 4 && isExtended(entry),
    });
  };

  for (const [i, entry] of mbr.entries.entries()) if (entry.sectors > 0) add(i + 1, entry, entry.start);
  let number = 5;
  let problem: string | undefined;
  for (const extended of mbr.entries.filter((entry) => entry.sectors > 0 && isExtended(entry))) {
    if ((extended.start + extended.sectors) * sectorSize > deviceSize) break;
    let at = extended.start;
    for (let links = 0; ; links++) {
      if (links === longestChain) problem ??= `MBR: more than ${longestChain} logical partitions`;
      if (problem !== undefined) break;
      tableSectors.push({ offset: at * sectorSize, length: sectorSize });
      const ebr = parseMbr(Buffer.from(await readAt(at * sectorSize, 512)));
      if (ebr === undefined) {
        // An extended partition without logical ones may begin with any bytes.
        if (links > 0) problem = `MBR: no table in sector ${at}, where a logical partition should begin`;
        break;
      }
      const [data, link] = logicalEntries(ebr, at, extended);
      for (const entry of data) add(number++, entry, at + entry.start);
      if (link === undefined) break;
      const next = extended.start + link.start;
      if (next <= at || next >= extended.start + extended.sectors)
        problem = `MBR: the table in sector ${at} leads to ${next}, out of order or outside the extended partition`;
      at = next;
    }
  }
  return {
    kind: 'mbr',
    uuid: mbr.identifier === 0 ? undefined : mbr.identifier.toString(16).padStart(8, '0'),
    partitions,
    tableSectors,
    problem: problem ?? layoutProblem(partitions, tableSectors, deviceSize, sectorSize),
    warnings: [],
  };
}

/** Returns the logical partitions of one EBR, and its link to the next. */
function logicalEntries(ebr: Mbr, at: number, extended: MbrEntry): [MbrEntry[], MbrEntry | undefined] {
  const filled = ebr.entries.filter((entry) => entry.sectors > 0);
  const end = extended.start + extended.sectors;
  const data = filled.filter((entry) => !isExtended(entry) && at + entry.start + entry.sectors <= end);
  return [data, filled.find((entry) => isExtended(entry) && entry.start > 0)];
}

function layoutProblem(
  partitions: readonly Partition[],
  tableSectors: PartitionTable['tableSectors'],
  deviceSize: number,
  sectorSize: number,
): string | undefined {
  const named = (list: readonly Partition[]): NamedRange[] =>
    list.map(({ number, start, size }) => ({ name: `partition ${number}`, start, end: start + size }));
  const primary = rangeProblem(named(partitions.filter((p) => p.number <= 4)), sectorSize, deviceSize);
  if (primary !== undefined) return `MBR: ${primary}`;
  const ebrs = tableSectors.map(({ offset, length }) => ({
    name: 'a table of logical partitions',
    start: offset,
    end: offset + length,
  }));
  const data = partitions.filter((partition) => !partition.container);
  const problem = rangeProblem([...named(data), ...ebrs], sectorSize, deviceSize);
  return problem === undefined ? undefined : `MBR: ${problem}`;
}

function isExtended(entry: MbrEntry): boolean {
  return extendedTypes.has(entry.type);
}

function partitionUuid(identifier: number, number: number): string | undefined {
  if (identifier === 0) return undefined;
  return `${identifier.toString(16).padStart(8, '0')}-${number.toString(16).padStart(2, '0')}`;
}
