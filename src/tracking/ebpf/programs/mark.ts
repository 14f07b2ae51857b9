/**
 * Marks a run of sectors in all ranges of a disk. One loop does everything, because the verifier checks loops step by
 * step. A step finds the next range, marks one word of a map, or goes to the next bio of a discard.
 *
 * A step of marking sets the rest of one 64-bit word (64 units, or 8 if units are bytes). It uses the fine map, or the
 * coarse map from a group's boundary on if whole groups remain. So marking 4 GiB exactly takes two hundred steps.
 */
import { type Assembler, helpers } from '../../../linux/bpf/assembler.ts';
import { pageSize, rangeFields, styles, type Style } from '../layout.ts';
import {
  countInAllRanges,
  frame,
  frameRegister,
  lookupRange,
  type ProgramContext,
  selectCounter,
} from './frame.ts';

export interface MarkOptions {
  /** Prefix of the labels, needed if a program marks at two places. */
  readonly prefix: string;
  /** The most steps; if they are not enough, everything counts as changed. The verifier limits this number. */
  readonly steps: number;
  /** Label to continue at. */
  readonly done: string;
  /** True if register 6 is a bio, and the bios after it are marked as well (disjoint pieces of one discard). */
  readonly walk?: boolean;
}

/**
 * Marks the sectors that are in the frame (`start`, `end`). The frame also holds the key of the disk's first range; its
 * index must be 0. Registers 7, 8 and 9 are lost.
 */
export function mark(a: Assembler, context: ProgramContext, options: MarkOptions): void {
  const { prefix: p, steps, done } = options;
  const { bioNext } = context.types;
  const afterRanges = options.walk === true ? `${p}bio` : done;
  a.mov(8, 0);

  a.label(`${p}range`).jump('ge', 8, steps, `${p}everything`).alu('add', 8, 1);
  lookupRange(a, context.maps, afterRanges);
  a.load(4, 1, frameRegister, frame.index).alu('add', 1, 1).store(4, frameRegister, frame.index, 1);
  clip(a, `${p}range`);
  a.label(`${p}mark`).jump('ge', 8, steps, `${p}everything`).alu('add', 8, 1);
  choose(a, context.style, `${p}chosen`);
  markWord[context.style](a, `${p}word`);
  a.movReg(2, frameRegister).alu('add', 2, frame.element);
  a.load(8, 1, frameRegister, frame.range).call(helpers.mapLookup).jump('eq', 0, 0, `${p}everything`);
  setWord[context.style](a, `${p}set`);
  a.jumpReg('le', 7, 9, `${p}mark`).goto(`${p}range`);

  if (options.walk === true) {
    a.label(`${p}bio`).load(8, 6, 6, bioNext).jump('eq', 6, 0, done);
    loadBio(a, context);
    a.storeImmediate(4, frameRegister, frame.index, 0).goto(`${p}range`);
  }

  a.label(`${p}everything`);
  selectCounter(a, 'everything');
  countInAllRanges(a, context.maps, `${p}all`, done);
}

/** Frame's sectors = those of the bio in register 6. Uses registers 1 and 2. */
export function loadBio(a: Assembler, context: ProgramContext): void {
  a.load(8, 1, 6, context.types.bioSector).store(8, frameRegister, frame.start, 1);
  a.load(4, 2, 6, context.types.bioSize).alu('rsh', 2, 9).aluReg('add', 2, 1);
  a.store(8, frameRegister, frame.end, 2);
}

/**
 * Registers 7 and 9 = first and last unit of the part that is inside the range. Register 0 holds the range's control
 * page. Goes to the next range if no part is inside.
 */
function clip(a: Assembler, next: string): void {
  const inside = `${next} from`;
  const until = `${next} to`;
  a.load(8, 1, 0, rangeFields.coarse).store(8, frameRegister, frame.coarse, 1);
  a.load(8, 7, frameRegister, frame.start).load(8, 9, frameRegister, frame.end);
  forgetBounds(a);
  a.load(8, 1, 0, rangeFields.start).load(8, 2, 0, rangeFields.end);
  a.jumpReg('le', 9, 1, next).jumpReg('ge', 7, 2, next).jumpReg('ge', 7, 9, next);
  a.jumpReg('ge', 7, 1, inside).movReg(7, 1).label(inside);
  a.jumpReg('le', 9, 2, until).movReg(9, 2).label(until);
  a.aluReg('sub', 7, 1).aluReg('sub', 9, 1).alu('sub', 9, 1);
  a.load(8, 1, 0, rangeFields.shift).aluReg('rsh', 7, 1).aluReg('rsh', 9, 1);
  forgetBounds(a);
}

/**
 * Makes the verifier forget the bounds of registers 7 and 9, so that all paths to here look alike and it checks only
 * one. For this, the registers are combined with a 0 that the verifier does not know. Register 0 is the control page; 1
 * is lost.
 */
function forgetBounds(a: Assembler): void {
  a.load(8, 1, 0, rangeFields.zero).aluReg('xor', 7, 1).aluReg('xor', 9, 1);
}

/** Chooses the map. Registers: 1 first and 2 last index in it, 3 its shift, 4 its first page. */
function choose(a: Assembler, style: Style, chosen: string): void {
  const shift = styles[style].groupShift;
  const group = 2 ** shift;
  a.mov(3, 0).mov(4, 1).movReg(1, 7).movReg(2, 9);
  a.movReg(5, 7)
    .alu('and', 5, group - 1)
    .jump('ne', 5, 0, chosen);
  a.movReg(5, 9)
    .aluReg('sub', 5, 7)
    .jump('lt', 5, group - 1, chosen);
  a.mov(3, shift).load(8, 4, frameRegister, frame.coarse);
  a.alu('rsh', 1, shift).alu('add', 2, 1).alu('rsh', 2, shift).alu('sub', 2, 1);
  a.label(chosen);
}

/** Advances register 7. Leaves in the frame the number of the element, the byte in it, and the value to put there. */
const markWord: Readonly<Record<Style, (a: Assembler, label: string) => void>> = {
  bits(a, label) {
    // 0 = number of bits in this word from index 1 to 2; 5 = the first bit's place in the word.
    a.movReg(5, 1).alu('and', 5, 63).mov(0, 64).aluReg('sub', 0, 5);
    a.aluReg('sub', 2, 1).alu('add', 2, 1).jumpReg('ge', 2, 0, label).movReg(0, 2).label(label);
    a.movReg(2, 0).aluReg('lsh', 2, 3).aluReg('add', 7, 2);
    a.mov(2, 64).aluReg('sub', 2, 0).mov(3, -1).aluReg('rsh', 3, 2).aluReg('lsh', 3, 5);
    a.store(8, frameRegister, frame.mask, 3);
    a.movReg(2, 1).alu('rsh', 2, 15).aluReg('add', 2, 4).store(4, frameRegister, frame.element, 2);
    a.alu('rsh', 1, 6).alu('lsh', 1, 3).store(8, frameRegister, frame.byte, 1);
  },
  bytes(a, label) {
    // 0 = 8 if a whole aligned word is left, else 1.
    a.mov(0, 1).movReg(5, 1).alu('and', 5, 7).jump('ne', 5, 0, label);
    a.aluReg('sub', 2, 1).jump('lt', 2, 7, label).mov(0, 8).label(label);
    a.store(8, frameRegister, frame.mask, 0);
    a.aluReg('lsh', 0, 3).aluReg('add', 7, 0);
    a.movReg(2, 1).alu('rsh', 2, 12).aluReg('add', 2, 4).store(4, frameRegister, frame.element, 2);
    a.store(8, frameRegister, frame.byte, 1);
  },
};

/** Sets the mark. Register 0 is the element's address. */
const setWord: Readonly<Record<Style, (a: Assembler, label: string) => void>> = {
  bits(a) {
    a.load(8, 1, frameRegister, frame.byte)
      .alu('and', 1, pageSize - 8)
      .aluReg('add', 0, 1);
    a.load(8, 1, frameRegister, frame.mask).atomicOr(0, 0, 1);
  },
  bytes(a, label) {
    a.load(8, 2, frameRegister, frame.mask).load(8, 1, frameRegister, frame.byte);
    a.jump('eq', 2, 8, label);
    a.alu('and', 1, pageSize - 1)
      .aluReg('add', 0, 1)
      .storeImmediate(1, 0, 0, 1)
      .goto(`${label} end`);
    a.label(label)
      .alu('and', 1, pageSize - 8)
      .aluReg('add', 0, 1);
    a.load64(1, 0x0101010101010101n).store(8, 0, 0, 1);
    a.label(`${label} end`);
  },
};
