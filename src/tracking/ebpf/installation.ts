/**
 * The part of eBPF tracking that all tracked devices share. This is the directory of pins, the maps in which programs
 * find ranges and in-flight writes, and the two sets of programs. Each set is loaded when its first device is tracked.
 * All of this outlives the process, and the next process opens it. One process at a time uses it: the directory is
 * locked.
 *
 *     DIRECTORY/control, ranges, in-flight, requests, nesting   the shared maps
 *     DIRECTORY/gone-request, gone-bio                  placeholders for a range that is no longer tracked
 *     DIRECTORY/range-MAJOR:MINOR                       a device's map (tracked-device-map.ts)
 */
import { closeSync, readFileSync } from 'node:fs';
import { mkdir, readdir, rm, rmdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { AgentError } from '../../base/errors.ts';
import { unlessAbsent } from '../../base/files.ts';
import { agentVersion } from '../../base/version.ts';
import { Assembler, helpers } from '../../linux/bpf/assembler.ts';
import { Btf } from '../../linux/bpf/btf.ts';
import type { MappedMap } from '../../linux/bpf/mapped.ts';
import { deleteFromMap, lookupMap, mapInfo, mapKeys, mapValues, updateMap } from '../../linux/bpf/maps.ts';
import { acceptsTracingProgram } from '../../linux/bpf/programs.ts';
import { isBpffs, mountBpffs, raiseLockedMemoryLimit } from '../../linux/bpffs.ts';
import { type KernelTypes, readKernelTypes, type TracepointName } from './kernel-types.ts';
import { inFlightKeySize, inFlightValueSize, rangeKey, rangesPerDisk, type Style } from './layout.ts';
import { PinLock } from './pin-lock.ts';
import { loadSet, openSet, type ProgramSet, programsDigest, removeSet, type SetName } from './program-set.ts';
import { type InFlight, readInFlight } from './programs/bio.ts';
import { type ProgramMaps, tracepointNumbers } from './programs/frame.ts';
import {
  closeShared,
  type ControlDescription,
  createShared,
  openShared,
  type Shared,
  type SharedOptions,
} from './shared-maps.ts';

export const defaultPinDirectory = '/sys/fs/bpf/dattod';
const btfPath = '/sys/kernel/btf/vmlinux';

export interface InstallationOptions extends SharedOptions {
  readonly directory: string;
  /** The lock of the directory, if the caller keeps it for longer than this is open. */
  readonly lock?: PinLock | undefined;
}

export class Installation {
  readonly directory: string;
  readonly style: Style;
  /** Why pins of an earlier process could not be used; undefined if there were none, or if they are used. */
  readonly doubt: string | undefined;
  readonly #maps: ProgramMaps;
  readonly #control: MappedMap;
  readonly #gone: Readonly<Record<SetName, { readonly fd: number; readonly id: number }>>;
  readonly #inFlightEntries: number;
  /** Undefined if the lock is the caller's. */
  readonly #lock: PinLock | undefined;
  readonly #types: KernelTypes;
  readonly #sets = new Map<SetName, ProgramSet>();

  private constructor(
    directory: string,
    lock: PinLock | undefined,
    types: KernelTypes,
    { maps, gone, control, description }: Shared,
    doubt: string | undefined,
  ) {
    this.directory = directory;
    this.doubt = doubt;
    this.style = description.style;
    this.#inFlightEntries = description.inFlightEntries;
    this.#lock = lock;
    this.#types = types;
    this.#maps = maps;
    this.#control = control;
    this.#gone = {
      request: { fd: gone.request, id: mapInfo(gone.request).id },
      bio: { fd: gone.bio, id: mapInfo(gone.bio).id },
    };
  }

  /**
   * Opens the pins, or creates new ones if there are none or they cannot be used. Throws NO_PERMISSION, NOT_SUPPORTED,
   * or DEVICE_BUSY (another process).
   */
  static async open(options: InstallationOptions): Promise<Installation> {
    const { directory } = options;
    const types = readKernelTypes(new Btf(readFileSync(btfPath)));
    raiseLockedMemoryLimit();
    await preparePinDirectory(directory);
    const own = options.lock === undefined ? new PinLock(directory) : undefined;
    try {
      (options.lock ?? own)?.acquire();
      const found = openUsable(directory, types);
      if (typeof found === 'object') return new Installation(directory, own, types, found, undefined);
      await clearPins(directory);
      const made = await createShared(directory, options, (style) => programsDigest(types, style));
      return new Installation(directory, own, types, made, found);
    } catch (thrown) {
      own?.release();
      throw thrown;
    }
  }

  /** Returns the attached set: the one that this process has open, the pinned one, or a new one. */
  async ensureSet(name: SetName): Promise<ProgramSet> {
    const present = this.attachedSet(name);
    if (present !== undefined) return present;
    // Entries of an earlier set would stay for ever, because the ends of those writes were not seen.
    const remembered = this.#remembered(name);
    for (const key of mapKeys(remembered, inFlightKeySize)) deleteFromMap(remembered, key);
    const set = await loadSet(this.directory, name, {
      types: this.#types,
      maps: this.#maps,
      style: this.style,
      probeRead: name === 'bio' && (await hasProbeRead(this.#types)),
    });
    this.#sets.set(name, set);
    return set;
  }

  /** Returns the set if it is attached. Does not load it. */
  attachedSet(name: SetName): ProgramSet | undefined {
    const known = this.#sets.get(name);
    if (known !== undefined) {
      if (known.fault() === undefined) return known;
      known.close();
      this.#sets.delete(name);
    }
    const pinned = openSet(this.directory, name);
    if (pinned !== undefined) this.#sets.set(name, pinned);
    return pinned;
  }

  /** Returns how often all copies of a tracepoint's program ran at once on one processor. */
  deepNestings(tracepoint: TracepointName): bigint {
    return new BigUint64Array(this.#control.memory)[tracepointNumbers[tracepoint]]!;
  }

  /** Returns writes that are in flight, and writes whose end was not seen, for all devices that use the set. */
  inFlight(name: SetName): InFlight[] {
    const remembered = this.#remembered(name);
    return mapValues(remembered, inFlightKeySize, inFlightValueSize, this.#inFlightEntries).map(readInFlight);
  }

  /**
   * Adds a range's map to the disk's ranges, so that the programs see it. `replaces` is the ID of the map that it
   * replaces, if that map is still there; `keep` are the IDs of all other maps in use. Throws NOT_SUPPORTED if the disk
   * has no free number.
   */
  addRange(disk: number, range: number, replaces: number | undefined, keep: ReadonlySet<number>): void {
    const free: number[] = [];
    for (let index = 0; index < rangesPerDisk; index++) {
      const id = this.#rangeAt(disk, index);
      if (id !== undefined && id !== replaces && keep.has(id)) continue;
      if (id === replaces && id !== undefined) {
        updateMap(this.#maps.ranges, rangeKey(disk, index), u32(range));
        return;
      }
      free.push(index);
      // The programs stop at the first free number.
      if (id === undefined) break;
    }
    const [index] = free;
    if (index === undefined)
      throw new AgentError(
        'NOT_SUPPORTED',
        `${rangesPerDisk} ranges of disk ${disk >>> 20}:${disk & 0xfffff} are tracked already, the most there can be`,
        { hint: 'end tracking of some with dattocli tracking stop' },
      );
    updateMap(this.#maps.ranges, rangeKey(disk, index), u32(range));
  }

  /** Hides a map from the programs. Its number stays taken, because the programs count numbers without gaps. */
  removeRange(disk: number, id: number, set: SetName): void {
    for (let index = 0; index < rangesPerDisk; index++) {
      const present = this.#rangeAt(disk, index);
      if (present === undefined) return;
      if (present === id) updateMap(this.#maps.ranges, rangeKey(disk, index), u32(this.#gone[set].fd));
    }
  }

  /** Returns true if the programs see this map as a range of the disk. */
  hasRange(disk: number, id: number): boolean {
    for (let index = 0; index < rangesPerDisk; index++) {
      const present = this.#rangeAt(disk, index);
      if (present === id) return true;
      if (present === undefined) return false;
    }
    return false;
  }

  /** Detaches all programs, so that they cost nothing on a machine that tracks nothing. */
  async detach(): Promise<void> {
    for (const set of this.#sets.values()) set.close();
    this.#sets.clear();
    await removeSet(this.directory, 'request');
    await removeSet(this.directory, 'bio');
  }

  /** Closes what this process holds. */
  close(): void {
    for (const set of this.#sets.values()) set.close();
    this.#sets.clear();
    this.#control.unmap();
    const { ranges, inFlight, requests, nesting, control } = this.#maps;
    for (const fd of [ranges, inFlight, requests, nesting, control, this.#gone.request.fd, this.#gone.bio.fd])
      closeSync(fd);
    this.#lock?.release();
  }

  /** Detaches everything and removes all pins; closes. */
  async remove(): Promise<void> {
    await removeSet(this.directory, 'request');
    await removeSet(this.directory, 'bio');
    await clearPins(this.directory);
    // Before the lock is released: otherwise another process could hold the lock of a directory that is gone.
    await rmdir(this.directory).catch(() => undefined);
    this.close();
  }

  #remembered(name: SetName): number {
    return name === 'bio' ? this.#maps.inFlight : this.#maps.requests;
  }

  /** Returns the ID of the map at a range key. */
  #rangeAt(disk: number, index: number): number | undefined {
    return lookupMap(this.#maps.ranges, rangeKey(disk, index), 4)?.readUInt32LE();
  }
}

/**
 * Removes all pins of an agent of any version, without opening them. Returns the names of the pins that were there.
 * Throws DEVICE_BUSY if a process uses them.
 */
export async function removeAllPins(directory: string = defaultPinDirectory): Promise<string[]> {
  const lock = new PinLock(directory);
  if (!isBpffs(directory) || !lock.acquire()) return [];
  try {
    const names = await readdir(directory);
    await clearPins(directory);
    await rmdir(directory).catch(() => undefined);
    return names.sort();
  } finally {
    lock.release();
  }
}

/** Returns the pinned maps, or why they cannot be used; undefined if there are none. */
function openUsable(directory: string, types: KernelTypes): Shared | string | undefined {
  const found = openShared(directory);
  if (typeof found !== 'object') return found;
  const {
    programs = 'none',
    agent = 'an older version',
    style,
  } = found.description as Partial<ControlDescription>;
  const own = programsDigest(types, style ?? 'bits');
  if (programs === own) return found;
  closeShared(found);
  return `the programs that mark writes are of another version of the agent (${agent}, programs ${programs}; this one is ${agentVersion}, with ${own})`;
}

/** Returns whether programs may follow untyped pointers: not under lockdown for confidentiality. */
function hasProbeRead(types: KernelTypes): Promise<boolean> {
  const a = new Assembler();
  a.movReg(1, 10).alu('add', 1, -8).mov(2, 8).mov(3, 0).call(helpers.probeReadKernel).mov(0, 0).exit();
  return acceptsTracingProgram(a.assemble(), types.tracepoints.block_bio_complete.id);
}

/** Creates the directory on a bpffs. Mounts a bpffs if there is none. */
async function preparePinDirectory(directory: string): Promise<void> {
  if (isBpffs(directory)) return;
  const usual = '/sys/fs/bpf';
  const mountPoint = directory.startsWith(`${usual}/`) ? usual : dirname(directory);
  if (!isBpffs(mountPoint)) {
    await mkdir(mountPoint, { recursive: true });
    mountBpffs(mountPoint);
  }
  await mkdir(directory, { recursive: true, mode: 0o700 });
}

async function clearPins(directory: string): Promise<void> {
  for (const name of (await unlessAbsent(directory, readdir(directory))) ?? [])
    await rm(join(directory, name), { force: true });
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}
