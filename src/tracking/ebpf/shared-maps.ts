/**
 * The maps that all tracked devices share. They are opened if an earlier process pinned them; otherwise they are
 * created and pinned. They are listed in installation.ts and docs/formats/tracking.md.
 */
import { closeSync } from 'node:fs';
import { join } from 'node:path';
import { agentVersion } from '../../base/version.ts';
import { Assembler } from '../../linux/bpf/assembler.ts';
import { createMap, mapFlags } from '../../linux/bpf/maps.ts';
import { type MappedMap, mapIntoMemory } from '../../linux/bpf/mapped.ts';
import { openPin, pin } from '../../linux/bpf/pins.ts';
import { acceptsProgram } from '../../linux/bpf/programs.ts';
import { type Description, readDescription, writeDescription } from './description.ts';
import {
  inFlightEntries,
  inFlightKeySize,
  inFlightValueSize,
  layoutVersion,
  pageSize,
  rangeFields,
  rangeKeySize,
  type Style,
} from './layout.ts';
import type { ProgramMaps } from './programs/frame.ts';
import type { SetName } from './program-set.ts';

const maxRanges = 1024;

export interface SharedOptions {
  /** Default: the best style that the kernel supports. */
  readonly style?: Style;
  /** For tests, which make the map overflow. */
  readonly inFlightEntries?: number;
}

export interface ControlDescription extends Description {
  readonly style: Style;
  readonly inFlightEntries: number;
  /**
   * The digest of the programs that mark into these maps (`programsDigest`), and the version of the agent that made
   * them.
   */
  readonly programs: string;
  readonly agent: string;
}

const shared = ['control', 'ranges', 'in-flight', 'requests', 'nesting', 'gone-request', 'gone-bio'] as const;

export interface Shared {
  readonly maps: ProgramMaps;
  readonly gone: Readonly<Record<SetName, number>>;
  readonly control: MappedMap;
  readonly description: ControlDescription;
}

export function closeShared({ maps, gone, control }: Shared): void {
  control.unmap();
  const { ranges, inFlight, requests, nesting } = maps;
  for (const fd of [ranges, inFlight, requests, nesting, maps.control, gone.request, gone.bio]) closeSync(fd);
}

/** Opens the pinned maps. Returns why they cannot be used; undefined if there are none. */
export function openShared(directory: string): Shared | string | undefined {
  const fds = shared.map((name) => openPin(join(directory, name)));
  const [control, ranges, inFlight, requests, nesting, goneRequest, goneBio] = fds;
  const giveUp = (doubt: string | undefined): string | undefined => {
    for (const fd of fds) if (fd !== undefined) closeSync(fd);
    return doubt;
  };
  if (fds.every((fd) => fd === undefined)) return giveUp(undefined);
  if (
    control === undefined ||
    ranges === undefined ||
    inFlight === undefined ||
    requests === undefined ||
    nesting === undefined ||
    goneRequest === undefined ||
    goneBio === undefined
  )
    return giveUp(`some of the pins in ${directory} are missing`);
  const memory = mapIntoMemory(control, pageSize);
  const description = readDescription(memory.memory) as ControlDescription | string;
  if (typeof description === 'string') {
    memory.unmap();
    return giveUp(description);
  }
  return {
    maps: { ranges, inFlight, requests, nesting, control },
    gone: { request: goneRequest, bio: goneBio },
    control: memory,
    description,
  };
}

/**
 * Creates and pins the maps. `programs`: returns the digest of the programs that will mark into the maps, by the style
 * of the marks.
 */
export async function createShared(
  directory: string,
  options: SharedOptions,
  programs: (style: Style) => string,
): Promise<Shared> {
  const entries = options.inFlightEntries ?? inFlightEntries;
  const style = options.style ?? ((await hasAtomicOr()) ? 'bits' : 'bytes');
  const template = createMap({ ...page, name: 'dattod_range' });
  const gone = { request: emptyRange(false), bio: emptyRange(true) };
  const maps = {
    ranges: createMap({
      type: 'hashOfMaps',
      keySize: rangeKeySize,
      valueSize: 4,
      entries: maxRanges,
      innerFd: template,
      name: 'dattod_ranges',
    }),
    inFlight: createMap({ ...onTheirWay, entries, name: 'dattod_inflight' }),
    requests: createMap({ ...onTheirWay, entries, name: 'dattod_requests' }),
    nesting: createMap({ type: 'perCpuArray', keySize: 4, valueSize: 8, entries: 4, name: 'dattod_nesting' }),
    control: createMap({ ...page, flags: mapFlags.mmapable, name: 'dattod_control' }),
  };
  closeSync(template);
  const control = mapIntoMemory(maps.control, pageSize);
  const description: ControlDescription = {
    ...{ layout: layoutVersion, style, inFlightEntries: entries },
    ...{ programs: programs(style), agent: agentVersion },
  };
  writeDescription(control.memory, description);
  pin(maps.ranges, join(directory, 'ranges'));
  pin(maps.inFlight, join(directory, 'in-flight'));
  pin(maps.requests, join(directory, 'requests'));
  pin(maps.nesting, join(directory, 'nesting'));
  pin(gone.request, join(directory, 'gone-request'));
  pin(gone.bio, join(directory, 'gone-bio'));
  // Pinned last: `openShared` needs all pins, so a process that died in between leaves pins that do not count.
  pin(maps.control, join(directory, 'control'));
  return { maps, gone, control, description };
}

const onTheirWay = { type: 'hash', keySize: inFlightKeySize, valueSize: inFlightValueSize } as const;

const page = {
  type: 'array',
  keySize: 4,
  valueSize: pageSize,
  entries: 1,
  flags: mapFlags.mmapable | mapFlags.innerMap,
} as const;

/**
 * A range without sectors. It must not end the programs' search for ranges, and must say if the device has no requests.
 */
function emptyRange(byBio: boolean): number {
  const fd = createMap({ ...page, name: 'dattod_gone' });
  const memory = mapIntoMemory(fd, pageSize);
  new BigUint64Array(memory.memory)[rangeFields.byBio / 8] = byBio ? 1n : 0n;
  memory.unmap();
  return fd;
}

/** Returns whether BPF_ATOMIC with OR exists (Linux 5.12). */
function hasAtomicOr(): Promise<boolean> {
  const a = new Assembler();
  a.mov(1, 0).store(8, 10, -8, 1).atomicOr(10, -8, 1).mov(0, 0).exit();
  return acceptsProgram(a.assemble());
}
