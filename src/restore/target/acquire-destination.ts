/**
 * Checks a destination in one flat list before anything is opened for writing. Refuses a destination that is mounted, used
 * as swap or held by another program. Refuses it also if it is too small, if the image itself is on it, or if its sectors
 * do not fit. A destination with contents is refused unless its name was typed again. After the checks, the destination is
 * opened exclusively and held until the restore ends.
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
import { describeUses, splitDeviceNumber } from '../../linux/device-uses.ts';
import { connectNbd } from '../../nbd/client/connect.ts';
import { type NbdAddress, formatNbdUri, parseNbdUri } from '../../nbd/client/uri.ts';
import { describeContents } from './contents.ts';
import type { DestinationSpec } from './destination.ts';
import type { SectorNeed } from './sectors.ts';
import type { DestinationName } from './destination-name.ts';
import type { CheckedRanges } from './unfinished.ts';

/** The requirements of the image for its destination. */
export interface Demands {
  /** Bytes. */
  readonly size: number;
  readonly sectorSize: number;
  /** The image has a partition table, whose numbers are sectors. */
  readonly partitioned: boolean;
  /** The sectors that the filesystem needs, if the image has no partition table. */
  readonly sectors: SectorNeed;
  /** Path of the vault's directory or of the image file on this machine. */
  readonly place: string | undefined;
}

export interface ResumeCheck extends CheckedRanges {
  /** No range was recorded, and the beginning of the destination does not come from the interrupted restore. */
  readonly nothingRecorded: boolean;
}

export interface AcquireOptions {
  /** The name of the destination, typed again: its contents may be overwritten. */
  readonly force?: string | undefined;
  /**
   * Present if an earlier restore of the same image to this destination was interrupted. Reads the destination and returns
   * the first range that differs from the restored data.
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
  /** The destination is a new file, so it reads as zeros. */
  readonly fresh: boolean;
  /** Several connections may write at once. */
  readonly parallel: boolean;
  /** The destination is a whole disk, whose partition table the kernel must read again. */
  readonly isDisk: boolean;
  readonly sectorSize: number;
  release(): Promise<void>;
}

/** Parses the value of `--to`. Throws BAD_TARGET, BAD_USAGE. */
export function parseDestination(text: string): DestinationName {
  if (/^nbds?(\+unix)?:/i.test(text)) return { kind: 'nbd', address: parseNbdUri(text), given: text };
  if (text === '') throw new AgentError('BAD_USAGE', 'The destination is empty');
  if (/^(vault|vault\+s3):/.test(text))
    throw new AgentError(
      'BAD_USAGE',
      `"${text}" is a vault, but the destination must be a device, a file or an NBD export`,
      { hint: 'use --vault to name the vault to restore from' },
    );
  return { kind: 'local', path: resolve(text), given: text };
}

/**
 * Checks a destination and opens it exclusively. Throws DEVICE_BUSY, TARGET_TOO_SMALL, TARGET_READ_ONLY, SAME_DEVICE,
 * TARGET_OCCUPIED, NOT_SUPPORTED (sectors), BAD_USAGE (`force` is another name), and the errors of connecting or opening.
 */
export async function acquireDestination(
  name: DestinationName,
  demands: Demands,
  options: AcquireOptions = {},
): Promise<HeldDestination> {
  const names = name.kind === 'nbd' ? [formatNbdUri(name.address)] : [name.path, await realPath(name.path)];
  checkForce(options.force, [name.given, ...names]);
  if (name.kind === 'nbd') return acquireExport(name.address, demands, options);
  const node = await statIfExisting(name.path);
  if (node?.isBlockDevice() === true) return acquireDevice(name.path, node.rdev, demands, options);
  if (node !== undefined && !node.isFile())
    throw new AgentError('FILE_ERROR', `${name.path} is neither a block device nor a file`);
  if (node === undefined && /^\/dev\/(?!shm\/)/.test(name.path))
    throw new AgentError(
      'DEVICE_NOT_FOUND',
      `${name.path} does not exist, and image files are not created in /dev`,
      {
        hint: "run 'dattocli devices' to list the block devices of this machine",
      },
    );
  return acquireFile(name.path, node?.size, demands, options);
}

async function acquireDevice(
  path: string,
  rdev: number,
  demands: Demands,
  options: AcquireOptions,
): Promise<HeldDestination> {
  const { place, size, sectorSize } = demands;
  const stack = await readStack(options.topology);
  const number = splitDeviceNumber(rdev);
  const device = stack.devices.find(({ major, minor }) => major === number.major && minor === number.minor);
  if (device === undefined || device.size === 0)
    throw new AgentError('DEVICE_NOT_FOUND', `${path} has no medium`, {
      hint: "run 'dattocli devices' to list the block devices of this machine",
    });

  const uses = await describeUses(number);
  if (uses.length > 0)
    throw new AgentError('DEVICE_BUSY', `Cannot restore to ${path}: it is ${uses.join(', ')}`, {
      hint: 'unmount it or stop its users, or boot a rescue system to restore the running system',
    });
  const self = place === undefined ? undefined : await liesOn(stack, place, device.name);
  if (self !== undefined)
    throw new AgentError(
      'SAME_DEVICE',
      `Cannot restore to ${path}: the image is read from this device (${self})`,
      {
        hint: 'copy the vault elsewhere, or restore to another device',
      },
    );
  if (device.readOnly)
    throw new AgentError('TARGET_READ_ONLY', `${path} is a read-only block device`, {
      hint: `run blockdev --setrw ${path}, if the hardware allows it`,
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

async function acquireFile(
  path: string,
  existing: number | undefined,
  demands: Demands,
  options: AcquireOptions,
): Promise<HeldDestination> {
  const { place, size } = demands;
  if (place !== undefined && existing !== undefined) {
    const [a, b] = await Promise.all([stat(path), stat(place)]);
    if (a.dev === b.dev && a.ino === b.ino)
      throw new AgentError('SAME_DEVICE', `${path} is the image to restore, so it cannot be the destination`);
  }
  if (place !== undefined && path.startsWith(`${resolve(place)}/`))
    throw new AgentError('SAME_DEVICE', `${path} is in the vault to restore from`, {
      hint: 'choose a file outside the vault',
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

async function checkFile(path: string, size: number, options: AcquireOptions): Promise<void> {
  const source = await openDeviceSource(path, { direct: false });
  try {
    const readAt: ReadAt = (offset, length) => source.readAt(offset, length);
    const contents = await describeContents(readAt, source.size, 512);
    await refuseOccupied(path, contents ?? `a file of ${formatBytes(size)}`, readAt, options);
  } finally {
    await source.close();
  }
}

async function acquireExport(
  address: NbdAddress,
  demands: Demands,
  options: AcquireOptions,
): Promise<HeldDestination> {
  const name = formatNbdUri(address);
  const target = await connectNbd(address, { signal: options.signal });
  try {
    if (target.readOnly)
      throw new AgentError('TARGET_READ_ONLY', `${name} is a read-only export`, {
        hint: target.advice ?? 'start the server with a writable export',
      });
    checkSize(name, target.size, demands.size);
    if (target.minimumBlock > demands.sectorSize) checkSectors(name, target.minimumBlock, demands);
    if (demands.size % target.minimumBlock !== 0)
      throw new AgentError(
        'NOT_SUPPORTED',
        `${name} takes only multiples of ${target.minimumBlock} bytes, but the image has ${demands.size} bytes`,
        { hint: 'start the server with a smaller minimum block size' },
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
    // Some servers accept only one client, and the threads need that connection.
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
    `The name given with --force is ${force}, but the destination is ${names[0] ?? ''}; nothing was written`,
    { hint: 'give --force the same name as the destination' },
  );
}

function checkSize(name: string, has: number, needs: number): void {
  if (has >= needs) return;
  throw new AgentError(
    'TARGET_TOO_SMALL',
    `${name} has ${has} bytes (${formatBytes(has)}), but the image has ${needs} (${formatBytes(needs)})`,
    { hint: `choose a destination of ${needs} bytes or more` },
  );
}

/**
 * Throws NOT_SUPPORTED if the sectors do not fit. Partition tables count in sectors. A filesystem cannot be mounted if the
 * sectors are larger than its own unit.
 */
function checkSectors(path: string, has: number, demands: Demands): void {
  const { sectorSize, partitioned, size, sectors } = demands;
  const refuse = (why: string): AgentError =>
    new AgentError(
      'NOT_SUPPORTED',
      `${path} has sectors of ${has} bytes, but the image is from a device with ${sectorSize}: ${why}`,
      { hint: 'restore to a file, or to a device with the same sector size' },
    );
  if (has === sectorSize) return;
  if (partitioned) throw refuse('its partition table counts in sectors and would be misread');
  if (has > sectorSize && (sectors.largest === undefined || sectors.largest < has))
    throw refuse(`${sectors.why}, so it may not be usable there`);
  if (size % has !== 0) throw refuse(`its size of ${size} bytes is not a multiple of the sector size`);
}

/** Throws TARGET_OCCUPIED, unless the contents come from an interrupted restore of the same image. */
async function refuseOccupied(
  name: string,
  contents: string,
  readAt: ReadAt,
  { resume }: AcquireOptions,
): Promise<void> {
  if (resume === undefined) throw occupied(name, contents);
  const { differs, nothingRecorded } = await resume(readAt);
  if (differs !== undefined)
    throw occupied(
      name,
      `${contents}. An earlier restore of the same image was interrupted, and then the ${differs.length} bytes at ${differs.offset} were changed`,
    );
  if (nothingRecorded)
    throw occupied(
      name,
      `${contents}. An earlier restore of the same image was interrupted before any range was recorded, and these contents do not come from it`,
    );
}

function occupied(name: string, contents: string): AgentError {
  return new AgentError('TARGET_OCCUPIED', `${name} is not empty: it holds ${contents}`, {
    hint: `check the contents; to overwrite them, give the name again: --force ${name}`,
  });
}
