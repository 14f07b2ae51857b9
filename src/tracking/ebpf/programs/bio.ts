/**
 * The programs for devices without requests (device-mapper, md, NVMe multipath, zram). A bio's sectors at its end are
 * not those that it began with. So `block_bio_queue` remembers its sectors by the bio's address, and
 * `block_bio_complete` marks the remembered sectors (remember.ts). Some drivers never report the end of a bio (md RAID
 * 0 without statistics).
 *
 * An entry is removed only after its marks are set, because this process reads the entries first and the marks after.
 */
import { Assembler, helpers } from '../../../linux/bpf/assembler.ts';
import { inFlightValueSize, rangeFields } from '../layout.ts';
import {
  copies,
  countAndLeave,
  countInAllRanges,
  enter,
  frame,
  frameRegister,
  leave,
  loadDevice,
  loadWritingOperation,
  lookup,
  type ProgramContext,
  requireByBio,
  selectUnpaired,
} from './frame.ts';
import { mark } from './mark.ts';
import { entry, forget, remember } from './remember.ts';

export function bioQueueProgram(context: ProgramContext, steps: number): Buffer {
  const { types, maps } = context;
  const a = new Assembler();
  enter(a, context, 'block_bio_queue');
  loadWritingOperation(a, types.bioFlags);
  loadDevice(a, types, 6, types.bioToDisk);
  requireByBio(a, maps, 'out');
  for (const reset of types.operations.zoneResets) a.jump('eq', 8, reset, 'zone reset');

  a.load(8, 7, 6, types.bioSector);
  // Also bios without data (flushes): their end must find an entry.
  a.load(4, 9, 6, types.bioSize).alu('rsh', 9, 9);
  remember(a, context, { map: maps.inFlight, steps, done: 'out', full: 'full' });

  countAndLeave(a, maps, [
    ['full', 'lostInFlight'],
    ['zone reset', 'zoneReset'],
  ]);
  return a.assemble();
}

export function bioCompleteProgram(context: ProgramContext, steps: number): Buffer {
  const { types, maps } = context;
  const a = new Assembler();
  enter(a, context, 'block_bio_complete');
  loadWritingOperation(a, types.bioFlags);
  a.store(8, frameRegister, frame.key, 6);
  lookup(a, maps.inFlight, frame.key).jump('eq', 0, 0, 'unpaired');
  a.load(8, 7, 0, 0).load(8, 9, 0, 8).jump('eq', 9, 0, 'forget').aluReg('add', 9, 7);
  a.load(4, 1, 0, 16).store(4, frameRegister, frame.device, 1);
  a.store(4, frameRegister, entry.device, 1).storeImmediate(4, frameRegister, frame.index, 0);
  if (types.operations.zoneAppend !== undefined) {
    // The place that a zone append wrote is known only at its end. The sectors between that place and the remembered
    // ones count as well.
    a.jump('ne', 8, types.operations.zoneAppend, 'place known');
    a.load(8, 1, 6, types.bioSector).movReg(2, 9).aluReg('sub', 2, 7).aluReg('add', 2, 1);
    a.jumpReg('ge', 1, 7, 'after').movReg(7, 1).label('after');
    a.jumpReg('le', 2, 9, 'until').movReg(9, 2).label('until');
    // As in mark.ts: the verifier should not distinguish the paths to here.
    a.mapValue(1, maps.control, rangeFields.zero).load(8, 1, 1, 0).aluReg('xor', 7, 1).aluReg('xor', 9, 1);
    a.label('place known');
  }
  a.store(8, frameRegister, frame.start, 7).store(8, frameRegister, frame.end, 9);
  mark(a, context, { prefix: '', steps, done: 'other' });

  // The bio may have been handed down unchanged to another tracked device, for which no program remembered it.
  a.label('other');
  loadDevice(a, types, 6, types.bioToDisk);
  a.load(4, 1, frameRegister, frame.device).load(4, 2, frameRegister, entry.device);
  a.jumpReg('eq', 1, 2, 'forget');
  requireByBio(a, maps, 'forget');
  selectUnpaired(a);
  countInAllRanges(a, maps, 'count other', 'forget');

  a.label('forget');
  // Only the last copy removes the entry: the other copies must find it.
  if (context.copy === copies - 1) forget(a, maps.inFlight);
  a.goto('out');

  a.label('unpaired');
  loadDevice(a, types, 6, types.bioToDisk);
  requireByBio(a, maps, 'out');
  findWhole(a, context);
  selectUnpaired(a);
  countInAllRanges(a, maps);
  leave(a);
  return a.assemble();
}

/**
 * Goes to `out` if the bio in register 6 was split off a bio that is remembered for the same device. Drivers split
 * bios, and the pieces end with events of their own (seen with md on 6.1). A piece points to the bio that it was split
 * off, which may be a piece itself.
 */
function findWhole(a: Assembler, context: ProgramContext): void {
  const { types, maps } = context;
  const levels = context.probeRead ? 4 : 1;
  a.load(8, 7, 6, types.bioPrivate);
  for (let level = 0; level < levels; level++) {
    a.store(8, frameRegister, frame.key, 7);
    lookup(a, maps.inFlight, frame.key).jump('eq', 0, 0, `no whole ${level}`);
    a.load(4, 1, 0, 16).load(4, 2, frameRegister, frame.device).jumpReg('eq', 1, 2, 'out');
    a.label(`no whole ${level}`);
    if (level === levels - 1) break;
    a.movReg(1, frameRegister).alu('add', 1, frame.scratch).mov(2, 8);
    a.movReg(3, 7).alu('add', 3, types.bioPrivate).call(helpers.probeReadKernel);
    a.load(8, 7, frameRegister, frame.scratch);
  }
}

/** The content of an entry of the in-flight map. */
export interface InFlight {
  readonly sector: number;
  readonly count: number;
  readonly device: number;
}

export function readInFlight(bytes: Buffer): InFlight {
  if (bytes.length !== inFlightValueSize)
    throw new RangeError(`an in-flight entry of ${bytes.length} bytes, not ${inFlightValueSize}`);
  return {
    sector: Number(bytes.readBigUInt64LE(0)),
    count: Number(bytes.readBigUInt64LE(8)),
    device: bytes.readUInt32LE(16),
  };
}
