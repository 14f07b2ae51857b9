/**
 * What may be restored onto: looked at in one flat list before anything is opened for writing. Refused is what is
 * mounted, held or swapped to, what is too small, what the image itself lies on, what has other sectors, and what holds
 * something, unless its name was typed out again. Then it is opened exclusively and held until the restore has ended.
 */
import { realpath, stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { AgentError } from '../../base/errors.ts';
import { formatBytes } from '../../base/bytes.ts';
import type { ReadAt } from '../../block/source.ts';
import { openDeviceSource } from '../../block/device-source.ts';
import { type FileTarget, openFileTarget } from '../../block/file-target.ts';
import { statIfExisting } from '../../block/write-errors.ts';
import { liesOn, readStack } from '../../devices/stacking.ts';
import type { TopologyOptions } from '../../devices/topology.ts';
import { describeUses, splitDeviceNumber } from '../../linux/usage.ts';
import { connectNbd } from '../../nbd/client/connect.ts';
import { type NbdAddress, formatNbdUri, parseNbdUri } from '../../nbd/client/uri.ts';
import { describeContents } from './contents.ts';
import type { DestinationSpec } from './destination.ts';
import type { SectorNeed } from './sectors.ts';
import type { DestinationName } from './destination-name.ts';
import type { CheckedRanges } from './unfinished.ts';

/** What the image asks of its destination. */
export interface Demands {
  /** Bytes. */
  readonly size: number;
  readonly sectorSize: number;
  /** It holds a partition table, whose numbers are sectors. */
  readonly partitioned: boolean;
  /** Of what begins at its first byte, if it has no partition table. */
  readonly sectors: SectorNeed;
  /** Of the vault's directory or image file on this machine. */
  readonly place: string | undefined;
}

export interface ResumeCheck extends CheckedRanges {
  /** And its beginning is not what was begun. */
  readonly nothingRecorded: boolean;
}

export interface CheckOptions {
  /** The destination's name, typed out again: what is on it may go. */
  readonly force?: string | undefined;
  /**
   * An earlier restore of the same image to this very destination was interrupted: reads the destination and tells the
   * first range that is not what was restored there. Absent: there was none.
   */
  readonly resume?: ((readAt: ReadAt) => Promise<ResumeCheck>) | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly topology?: TopologyOptions | undefined;
}

export interface HeldDestination {
  readonly spec: DestinationSpec;
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  /** It is a file that was made just now, so that it reads as zeros. */
  readonly fresh: boolean;
  /** Several connections may write at once. */
  readonly parallel: boolean;
  /** A whole disk, whose partitions the kernel is to read again. */
  readonly isDisk: boolean;
  readonly sectorSize: number;
  release(): Promise<void>;
}

/** Reads what follows `--to`. Throws BAD_TARGET, BAD_USAGE. */
export function parseDestination(text: string): DestinationName {
  if (/^nbds?(\+unix)?:/i.test(text)) return { kind: 'nbd', address: parseNbdUri(text), given: text };
  if (text === '') throw new AgentError('BAD_USAGE', 'The destination is empty');
  if (/^(vault|vault\+s3):/.test(text))
    throw new AgentError(
      'BAD_USAGE',
      `"${text}" is a vault; a restore goes to a device, a file or an NBD export`,
      { hint: '--vault says which vault to restore from' },
    );
  return { kind: 'local', path: resolve(text), given: text };
}

/**
 * Checks and holds it. Throws DEVICE_BUSY, TARGET_TOO_SMALL, TARGET_READ_ONLY, SAME_DEVICE, TARGET_OCCUPIED, NOT_SUPPORTED
 * (sectors), BAD_USAGE (`force` names something else), and what connecting or opening throws.
 */
export async function holdDestination(
  name: DestinationName,
  demands: Demands,
  options: CheckOptions = {},
): Promise<HeldDestination> {
  const names = name.kind === 'nbd' ? [formatNbdUri(name.address)] : [name.path, await realPath(name.path)];
  checkForce(options.force, [name.given, ...names]);
  if (name.kind === 'nbd') return holdExport(name.address, demands, options);
  const node = await statIfExisting(name.path);
  if (node?.isBlockDevice() === true) return holdDevice(name.path, node.rdev, demands, options);
  if (node !== undefined && !node.isFile())
    throw new AgentError('FILE_ERROR', `${name.path} is neither a block device nor a file`);
  if (node === undefined && /^\/dev\/(?!shm\/)/.test(name.path))
    throw new AgentError(
      'DEVICE_NOT_FOUND',
      `${name.path} does not exist, and no image file is made in /dev`,
      {
        hint: 'dattocli devices lists the block devices of this machine',
      },
    );
  return holdFile(name.path, node?.size, demands, options);
}

async function holdDevice(
  path: string,
  rdev: number,
  demands: Demands,
  options: CheckOptions,
): Promise<HeldDestination> {
  const { place, size, sectorSize } = demands;
  const stack = await readStack(options.topology);
  const number = splitDeviceNumber(rdev);
  const device = stack.devices.find(({ major, minor }) => major === number.major && minor === number.minor);
  if (device === undefined || device.size === 0)
    throw new AgentError('DEVICE_NOT_FOUND', `${path} has no medium`, {
      hint: 'dattocli devices lists the block devices of this machine',
    });

  const uses = await describeUses(number);
  if (uses.length > 0)
    throw new AgentError('DEVICE_BUSY', `${path} is not restored onto: it is ${uses.join(', ')}`, {
      hint: 'unmount or stop what uses it, or boot a rescue system to restore the running system',
    });
  const self = place === undefined ? undefined : await liesOn(stack, place, device.name);
  if (self !== undefined)
    throw new AgentError(
      'SAME_DEVICE',
      `${path} is not restored onto, since the image is read from it: ${self}`,
      {
        hint: 'copy the vault elsewhere, or restore to another device',
      },
    );
  if (device.readOnly)
    throw new AgentError('TARGET_READ_ONLY', `${path} is a read-only block device`, {
      hint: 'blockdev --setrw makes it writable, where the hardware allows',
    });
  checkSize(path, device.size, size);
  checkSectors(path, device.sectorSize, demands);
  if (options.force === undefined) {
    const source = await openDeviceSource(path);
    try {
      const readAt: ReadAt = (offset, length) => source.readAt(offset, length);
      const contents = await describeContents(readAt, source.size, source.sectorSize);
      if (contents !== undefined) await refuseOccupied(path, contents, readAt, options);
    } finally {
      await source.close();
    }
  }

  const target = await openFileTarget(path);
  return {
    spec: { kind: 'local', path, isDevice: true, sectorSize: device.sectorSize },
    name: path,
    size: target.size - (target.size % device.sectorSize),
    fresh: false,
    parallel: true,
    isDisk: device.partition === undefined,
    sectorSize: Math.max(sectorSize, device.sectorSize),
    release: () => target.close(),
  };
}

async function holdFile(
  path: string,
  existing: number | undefined,
  demands: Demands,
  options: CheckOptions,
): Promise<HeldDestination> {
  const { place, size } = demands;
  if (place !== undefined && existing !== undefined) {
    const [a, b] = await Promise.all([stat(path), stat(place)]);
    if (a.dev === b.dev && a.ino === b.ino)
      throw new AgentError('SAME_DEVICE', `${path} is the very image that is to be restored`);
  }
  if (place !== undefined && path.startsWith(`${resolve(place)}/`))
    throw new AgentError('SAME_DEVICE', `${path} lies in the vault that it would be restored from`, {
      hint: 'choose a file elsewhere',
    });
  if (existing !== undefined && existing > 0) {
    checkSize(path, existing, size);
    if (options.force === undefined) await checkFile(path, existing, options);
  }
  const fresh = existing === undefined || existing === 0;
  const target: FileTarget = await openFileTarget(path, { create: { size } });
  return {
    spec: { kind: 'local', path, isDevice: false, sectorSize: demands.sectorSize },
    name: path,
    size: target.size,
    fresh,
    parallel: true,
    isDisk: false,
    sectorSize: demands.sectorSize,
    release: () => target.close(),
  };
}

async function checkFile(path: string, size: number, options: CheckOptions): Promise<void> {
  const source = await openDeviceSource(path, { direct: false });
  try {
    const readAt: ReadAt = (offset, length) => source.readAt(offset, length);
    const contents = await describeContents(readAt, source.size, 512);
    await refuseOccupied(path, contents ?? `a file of ${formatBytes(size)}`, readAt, options);
  } finally {
    await source.close();
  }
}

async function holdExport(
  address: NbdAddress,
  demands: Demands,
  options: CheckOptions,
): Promise<HeldDestination> {
  const name = formatNbdUri(address);
  const target = await connectNbd(address, { signal: options.signal });
  try {
    if (target.readOnly)
      throw new AgentError('TARGET_READ_ONLY', `${name} is a read-only export`, {
        hint: target.advice ?? 'start the server so that it can be written',
      });
    checkSize(name, target.size, demands.size);
    if (target.minimumBlock > demands.sectorSize) checkSectors(name, target.minimumBlock, demands);
    if (demands.size % target.minimumBlock !== 0)
      throw new AgentError(
        'NOT_SUPPORTED',
        `${name} takes multiples of ${target.minimumBlock} bytes, and the image has ${demands.size}`,
        { hint: 'start the server with smaller blocks' },
      );
    if (options.force === undefined) {
      const readAt: ReadAt = async (offset, length) => {
        const unit = target.minimumBlock;
        const start = offset - (offset % unit);
        const end = Math.min(target.size, Math.ceil((offset + length) / unit) * unit);
        const data = await target.read(start, end - start);
        return data.subarray(offset - start, offset - start + length);
      };
      const contents = await describeContents(readAt, target.size, demands.sectorSize);
      if (contents !== undefined) await refuseOccupied(name, contents, readAt, options);
    }
    return {
      spec: { kind: 'nbd', address },
      name,
      size: target.size,
      fresh: false,
      parallel: target.abilities.multiConnection,
      isDisk: false,
      sectorSize: demands.sectorSize,
      release: () => Promise.resolve(),
    };
  } finally {
    // Some servers take one client only, and the threads connect by themselves.
    await target.close();
  }
}

function realPath(path: string): Promise<string> {
  return realpath(path).catch(() => path);
}

function checkForce(force: string | undefined, names: readonly string[]): void {
  if (force === undefined || names.includes(force)) return;
  throw new AgentError(
    'BAD_USAGE',
    `The name given to confirm is ${force}, but the destination is ${names[0] ?? ''}: nothing was written`,
    { hint: 'give the name of the destination itself, as it was given' },
  );
}

function checkSize(name: string, has: number, needs: number): void {
  if (has >= needs) return;
  throw new AgentError(
    'TARGET_TOO_SMALL',
    `${name} has ${has} bytes (${formatBytes(has)}), and the image has ${needs} (${formatBytes(needs)})`,
    { hint: `choose a destination of ${needs} bytes or more` },
  );
}

/** Tables count in sectors; filesystems cannot be mounted where sectors are larger than their own units. */
function checkSectors(path: string, has: number, demands: Demands): void {
  const { sectorSize, partitioned, size, sectors } = demands;
  const refuse = (why: string): AgentError =>
    new AgentError(
      'NOT_SUPPORTED',
      `${path} has sectors of ${has} bytes, and the image was taken of one with ${sectorSize}: ${why}`,
      { hint: 'restore to a file, or to a device with the same sectors' },
    );
  if (has === sectorSize) return;
  if (partitioned) throw refuse('its partition table counts in sectors, and would be read wrongly');
  if (has > sectorSize && (sectors.largest === undefined || sectors.largest < has))
    throw refuse(`${sectors.why}, and might not be usable there`);
  if (size % has !== 0) throw refuse(`its size of ${size} bytes is no multiple of them`);
}

/** Throws TARGET_OCCUPIED, unless the contents are what an interrupted restore of the same image has put there. */
async function refuseOccupied(
  name: string,
  contents: string,
  readAt: ReadAt,
  { resume }: CheckOptions,
): Promise<void> {
  if (resume === undefined) throw occupied(name, contents);
  const { differs, nothingRecorded } = await resume(readAt);
  if (differs !== undefined)
    throw occupied(
      name,
      `${contents}. An earlier restore of the same image was interrupted, and since then the ${differs.length} bytes at ${differs.offset} were changed`,
    );
  if (nothingRecorded)
    throw occupied(
      name,
      `${contents}. An earlier restore of the same image was interrupted before anything of it was recorded, and this is not what it had begun to write`,
    );
}

function occupied(name: string, contents: string): AgentError {
  return new AgentError('TARGET_OCCUPIED', `${name} is not empty: it holds ${contents}`, {
    hint: `look twice; then give its name once more to overwrite it (--force ${name})`,
  });
}
