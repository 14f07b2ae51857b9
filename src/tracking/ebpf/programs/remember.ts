/**
 * Remembers a write in flight by the address of its bio or request until its end is seen. If the driver never reports
 * the end, the entry stays, and counts as dirty in each take. If its address is used again, the old entry is marked
 * first.
 */
import { type Assembler, helpers } from '../../../linux/bpf/assembler.ts';
import { frame, frameRegister, lookup, type ProgramContext } from './frame.ts';
import { mark } from './mark.ts';

/** Offsets of an entry's fields in the frame, in the stored order (layout.ts). */
export const entry = {
  sector: frame.value,
  count: frame.value + 8,
  device: frame.value + 16,
  pad: frame.value + 20,
} as const;

export interface RememberOptions {
  readonly map: number;
  /** Steps of the marking of an entry that is left over. */
  readonly steps: number;
  /** The label to continue at; and the label if there was no room, with the device in the frame. */
  readonly done: string;
  readonly full: string;
}

/**
 * Registers: 6 the address, 7 the first sector, 9 the number of sectors. The device is in the frame. Registers 7, 8 and
 * 9 are lost.
 */
export function remember(a: Assembler, context: ProgramContext, options: RememberOptions): void {
  const { map, steps, done, full } = options;
  a.store(8, frameRegister, entry.sector, 7).store(8, frameRegister, entry.count, 9);
  a.load(4, 8, frameRegister, frame.device).store(4, frameRegister, entry.device, 8);
  a.storeImmediate(4, frameRegister, entry.pad, 0).store(8, frameRegister, frame.key, 6);
  lookup(a, map, frame.key).jump('eq', 0, 0, 'remember');
  // Either another copy of this program has stored the entry already, or the same write is made again.
  a.load(8, 1, 0, 0).jumpReg('ne', 1, 7, 'stale').load(8, 1, 0, 8).jumpReg('ne', 1, 9, 'stale');
  a.load(4, 1, 0, 16).jumpReg('eq', 1, 8, done);
  a.label('stale').load(8, 1, 0, 8).jump('eq', 1, 0, 'remember');
  a.load(8, 2, 0, 0).store(8, frameRegister, frame.start, 2).aluReg('add', 1, 2);
  a.store(8, frameRegister, frame.end, 1).load(4, 1, 0, 16).store(4, frameRegister, frame.device, 1);
  mark(a, context, { prefix: '', steps, done: 'remember' });

  a.label('remember').mapFd(1, map).movReg(2, frameRegister).alu('add', 2, frame.key);
  a.movReg(3, frameRegister).alu('add', 3, frame.value).mov(4, 0).call(helpers.mapUpdate);
  a.jump('eq', 0, 0, done);
  a.load(4, 1, frameRegister, entry.device).store(4, frameRegister, frame.device, 1);
  a.goto(full);
}

/** Removes the entry whose address is in the frame at `key`. */
export function forget(a: Assembler, map: number): void {
  a.mapFd(1, map).movReg(2, frameRegister).alu('add', 2, frame.key).call(helpers.mapDelete);
}
