/**
 * Linux swap areas. The first page is the header. The contents of the pages after it mean nothing after a restart, so
 * they are free, unless they hold a hibernated system. Format: include/linux/swap.h (union swap_header), signatures of
 * suspended systems as in libblkid's superblocks/swap.c.
 *
 * | offset | what |
 * | --- | --- |
 * | page size - 10 | `SWAPSPACE2` |
 * | 1024, 1028, 1032 | version (1), last page, number of bad pages (listed within the page) |
 * | 1036, 1052 | uuid, label |
 */
import type { ReadAt } from '../../block/source.ts';
import { type FilesystemIdentity, type UsedMap, type UsedMapReader, everythingUsed } from '../used-map.ts';
import { labelText, uuidText } from '../uuid.ts';
import { ExtentBatches } from '../extent-batches.ts';

const pageSizes = [4096, 8192, 16384, 32768, 65536];
const suspended = ['S1SUSPEND', 'S2SUSPEND', 'ULSUSPEND', 'LINHIB0001'];
const tuxOnIce = Buffer.from('edc302e998 56e50c'.replace(' ', ''), 'hex');

interface SwapHeader {
  readonly identity: FilesystemIdentity;
  readonly pageSize: number;
  /** Undefined for the old format and for foreign byte order. */
  readonly lastPage: number | undefined;
}

/** Returns the identity, with type `swap`, or `swsuspend` if the area holds a hibernated system. */
export async function probeSwap(readAt: ReadAt, deviceSize: number): Promise<FilesystemIdentity | undefined> {
  return (await readHeader(readAt, deviceSize))?.identity;
}

export const readSwapUsedMap: UsedMapReader = async (readAt, deviceSize): Promise<UsedMap> => {
  const header = await readHeader(readAt, deviceSize);
  if (header === undefined) return everythingUsed(deviceSize, 'swap: no header');
  const { identity, pageSize, lastPage } = header;
  if (identity.type === 'swsuspend')
    return everythingUsed(deviceSize, 'swap: a hibernated system lies in it', identity);
  if (lastPage === undefined)
    return everythingUsed(deviceSize, 'swap: only version 1 in little-endian order is known', identity);
  const end = (lastPage + 1) * pageSize;
  if (end > deviceSize)
    return everythingUsed(deviceSize, `swap: has ${end} bytes, but the device ${deviceSize}`, identity);
  const used = new ExtentBatches();
  used.add(0, pageSize);
  used.add(end, deviceSize);
  const extents = used.finish();
  return {
    filesystem: identity,
    everything: false,
    warnings: [],
    // eslint-disable-next-line @typescript-eslint/require-await -- the shape is asynchronous
    extents: (async function* () {
      yield extents;
    })(),
  };
};

async function readHeader(readAt: ReadAt, deviceSize: number): Promise<SwapHeader | undefined> {
  if (deviceSize < 10 * 4096) return undefined;
  const head = Buffer.from(await readAt(0, Math.min(65536, deviceSize)));
  for (const pageSize of pageSizes) {
    if (pageSize > head.length) return undefined;
    const magic = head.toString('latin1', pageSize - 10, pageSize).replace(/\0+$/, '');
    const hibernated = suspended.includes(magic) || head.subarray(0, 8).equals(tuxOnIce);
    if (hibernated) return parseHeader(head, pageSize, 'swsuspend');
    if (magic === 'SWAPSPACE2' && validVersion(head)) return parseHeader(head, pageSize, 'swap');
    if (magic === 'SWAP-SPACE') return oldHeader(pageSize);
  }
  return undefined;
}

function validVersion(head: Buffer): boolean {
  const version = head.readUInt32LE(1024) === 1 || head.readUInt32BE(1024) === 1;
  return version && head.readUInt32LE(1028) !== 0;
}

function parseHeader(head: Buffer, pageSize: number, type: 'swap' | 'swsuspend'): SwapHeader {
  const lastPage = head.readUInt32LE(1024) === 1 ? head.readUInt32LE(1028) : undefined;
  return {
    identity: {
      type,
      uuid: uuidText(head.subarray(1036, 1052)),
      label: labelText(head.subarray(1052, 1068)),
      blockSize: pageSize,
      size: lastPage === undefined ? undefined : (lastPage + 1) * pageSize,
    },
    pageSize,
    lastPage,
  };
}

function oldHeader(pageSize: number): SwapHeader {
  const identity = { type: 'swap', uuid: undefined, label: undefined, blockSize: pageSize, size: undefined };
  return { identity, pageSize, lastPage: undefined };
}
