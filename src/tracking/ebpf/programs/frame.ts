/**
 * The parts that all programs have in common: the maps they use, the layout of their stack frame, and the code at their
 * beginning and end.
 *
 * Registers: 6 is the request or bio, 7 and 9 are the first and last unit while marking, 8 is the number of steps so
 * far.
 */
import { type Assembler, helpers, type Register } from '../../../linux/bpf/assembler.ts';
import type { KernelTypes, TracepointName } from '../kernel-types.ts';
import { counters, rangeFields, rangesPerDisk, type Style } from '../layout.ts';

/** Open maps, by their file descriptors. */
export interface ProgramMaps {
  /** HASH_OF_MAPS: from a range key to the range's map. */
  readonly ranges: number;
  /** HASH: from a bio's address to the sectors that it writes. */
  readonly inFlight: number;
  /** HASH: the same for a request's address. */
  readonly requests: number;
  /** PERCPU_ARRAY: for each tracepoint, how many copies of its program run on this processor. */
  readonly nesting: number;
  /** ARRAY of one page: for each tracepoint, how often `copies` copies ran at once. */
  readonly control: number;
}

export interface ProgramContext {
  readonly types: KernelTypes;
  readonly maps: ProgramMaps;
  readonly style: Style;
  /** Number of this copy, from 0. */
  readonly copy: number;
  /**
   * True if pointers without a type may be followed (bpf_probe_read_kernel; not under lockdown for confidentiality).
   */
  readonly probeRead: boolean;
}

/**
 * How many copies of each program are loaded. The kernel skips a program for an event that interrupts the same program
 * on the same processor (since 5.12). Events nest in a task, a softirq and a hardirq, and not deeper.
 */
export const copies = 3;

/** Numbers of the tracepoints in `nesting` and `control`. */
export const tracepointNumbers: Readonly<Record<TracepointName, number>> = {
  block_rq_complete: 0,
  block_bio_queue: 1,
  block_bio_complete: 2,
  block_rq_issue: 3,
};

/** Offsets in the stack frame, below register 10. */
export const frame = {
  /** TrackedDeviceMap key: device u32, index u32. */
  device: -8,
  index: -4,
  /** u32: number of an element of a map. */
  element: -16,
  /** Sectors, from and to (exclusive). */
  start: -24,
  end: -32,
  range: -40,
  coarse: -48,
  mask: -56,
  byte: -64,
  nesting: -72,
  /** In-flight value and key. */
  value: -104,
  key: -112,
  scratch: -120,
} as const;

export const frameRegister = 10;

/** Register 6 = the tracepoint's request or bio. Raises the count of running copies. */
export function enter(a: Assembler, context: ProgramContext, tracepoint: TracepointName): void {
  a.load(8, 6, 1, context.types.tracepoints[tracepoint].argument);
  const number = tracepointNumbers[tracepoint];
  a.storeImmediate(4, frameRegister, frame.element, number);
  lookup(a, context.maps.nesting, frame.element).jump('eq', 0, 0, 'leave');
  a.store(8, frameRegister, frame.nesting, 0);
  a.load(8, 1, 0, 0).alu('add', 1, 1).store(8, 0, 0, 1).jump('lt', 1, copies, 'entered');
  a.mapValue(1, context.maps.control, number * 8)
    .mov(2, 1)
    .atomicAdd(1, 0, 2);
  a.label('entered');
}

/**
 * Register 8 = operation of the request or bio in register 6, whose flags are at offset `flags`. Goes to `out` unless
 * the operation writes, which its lowest bit says (include/linux/blk_types.h). Register 1 is lost.
 */
export function loadWritingOperation(a: Assembler, flags: number): void {
  a.load(4, 8, 6, flags).alu('and', 8, 0xff);
  a.movReg(1, 8).alu('and', 1, 1).jump('eq', 1, 0, 'out');
}

/** The labels `out` (lowers the count of running copies) and `leave`. */
export function leave(a: Assembler): void {
  a.label('out').load(8, 0, frameRegister, frame.nesting);
  a.load(8, 1, 0, 0).alu('sub', 1, 1).store(8, 0, 0, 1);
  a.label('leave').mov(0, 0).exit();
}

/** Register 0 = address of the value whose key is in the frame at `key`, or 0. Registers 1 to 5 are lost. */
export function lookup(a: Assembler, mapFd: number, key: number): Assembler {
  return a.mapFd(1, mapFd).movReg(2, frameRegister).alu('add', 2, key).call(helpers.mapLookup);
}

/** TrackedDeviceMap key = the device at the end of `path` from register `from`, index 0. Uses registers 1 to 3. */
export function loadDevice(a: Assembler, types: KernelTypes, from: Register, path: readonly number[]): void {
  let register = from;
  for (const offset of path) {
    a.load(8, 1, register, offset);
    register = 1;
  }
  a.load(4, 2, 1, types.diskMajor).alu('lsh', 2, 20).load(4, 3, 1, types.diskMinor).aluReg('or', 2, 3);
  a.store(4, frameRegister, frame.device, 2).storeImmediate(4, frameRegister, frame.index, 0);
}

/**
 * Register 0 = control page of the range whose key is in the frame. Goes to `none` if there is no such range. Leaves
 * the range's map in the frame.
 */
export function lookupRange(a: Assembler, maps: ProgramMaps, none: string): void {
  lookup(a, maps.ranges, frame.device).jump('eq', 0, 0, none);
  a.store(8, frameRegister, frame.range, 0).storeImmediate(4, frameRegister, frame.element, 0);
  a.movReg(1, 0).movReg(2, frameRegister).alu('add', 2, frame.element).call(helpers.mapLookup);
  a.jump('eq', 0, 0, none);
}

/** Goes to `no` unless the device of the frame's key is tracked and has no requests. */
export function requireByBio(a: Assembler, maps: ProgramMaps, no: string): void {
  lookupRange(a, maps, no);
  a.load(8, 1, 0, rangeFields.byBio).jump('eq', 1, 0, no);
}

/**
 * Code at the label `count`: raises the counter whose offset is in register 7, then goes to `done`. It does so in all
 * ranges of the device of the frame's key whose grace is over at the time in register 9.
 */
export function countInAllRanges(a: Assembler, maps: ProgramMaps, label = 'count', done = 'out'): void {
  a.label(label).mov(8, 0).label(`${label} next`);
  a.store(4, frameRegister, frame.index, 8);
  lookupRange(a, maps, done);
  a.load(8, 1, 0, rangeFields.grace).jumpReg('lt', 9, 1, `${label} on`);
  a.aluReg('add', 0, 7).mov(1, 1).atomicAdd(0, 0, 1);
  a.label(`${label} on`).alu('add', 8, 1).jump('lt', 8, rangesPerDisk, `${label} next`).goto(done);
}

/** Sets registers 7 and 9 for `count`: the counter, without grace. */
export function selectCounter(a: Assembler, counter: keyof typeof counters): void {
  a.mov(7, counters[counter]).mov(9, -1);
}

/**
 * The end of a program: for each counter a label, at which the counter is raised in all ranges of the device; then
 * `leave`.
 */
export function countAndLeave(
  a: Assembler,
  maps: ProgramMaps,
  labels: readonly (readonly [label: string, counter: keyof typeof counters])[],
): void {
  for (const [at, [label, counter]] of labels.entries()) {
    selectCounter(a.label(label), counter);
    if (at < labels.length - 1) a.goto('count');
  }
  countInAllRanges(a, maps);
  leave(a);
}

/**
 * Sets registers 7 and 9 for `count`, for writes that ended without a beginning. Writes that were under way when the
 * epoch began do not count.
 */
export function selectUnpaired(a: Assembler): Assembler {
  return a.call(helpers.ktimeGetNs).movReg(9, 0).mov(7, counters.unpaired);
}
