/**
 * Turns the maps that the programs mark into a dirty map. Each mark first goes to the taken map, and only then are
 * exactly the bits that were seen cleared. So a process that dies at any instruction has lost nothing, and a mark that
 * comes in the meantime stays for the next take.
 *
 * A mark may come between reading and clearing. It is of a write that is on the device already. Its unit is in the
 * taken map, so the unit is read after the write. Pure over memory.
 */
import { styles, type Shape, type Style } from './layout.ts';

/** The parts of a range's map. */
export interface Marked {
  readonly shape: Shape;
  readonly fine: Uint8Array;
  readonly coarse: Uint8Array;
  /** One bit per unit. */
  readonly taken: Int32Array;
}

/** Moves all marks into the taken map. */
export function moveMarks(marked: Marked): void {
  const { shape, fine, coarse, taken } = marked;
  const { groupShift } = styles[shape.style];
  const groups = Math.ceil(shape.units / 2 ** groupShift);
  forEachMark[shape.style](coarse, groups, true, (group) =>
    fillUnits(taken, group * 2 ** groupShift, Math.min((group + 1) * 2 ** groupShift, shape.units)),
  );
  if (shape.style === 'bits') moveWords(words(fine), taken);
  else forEachMark.bytes(fine, shape.units, true, (unit) => fillUnits(taken, unit, unit + 1));
}

/** Adds all marks to `into` without clearing them. */
export function copyMarks(marked: Omit<Marked, 'taken'>, into: Int32Array): void {
  const { shape, fine, coarse } = marked;
  const { groupShift } = styles[shape.style];
  const groups = Math.ceil(shape.units / 2 ** groupShift);
  forEachMark[shape.style](coarse, groups, false, (group) =>
    fillUnits(into, group * 2 ** groupShift, Math.min((group + 1) * 2 ** groupShift, shape.units)),
  );
  if (shape.style === 'bits') {
    const marks = words(fine);
    for (let i = 0; i < into.length; i++) into[i] = into[i]! | marks[i]!;
  } else forEachMark.bytes(fine, shape.units, false, (unit) => fillUnits(into, unit, unit + 1));
}

/** Sets the bits from `from` to `to` (exclusive). */
export function fillUnits(map: Int32Array, from: number, to: number): void {
  for (let unit = from; unit < to;) {
    if ((unit & 31) === 0 && to - unit >= 32) {
      const whole = (to - unit) >>> 5;
      map.fill(-1, unit >>> 5, (unit >>> 5) + whole);
      unit += whole * 32;
    } else {
      map[unit >>> 5] = map[unit >>> 5]! | (1 << (unit & 31));
      unit++;
    }
  }
}

function moveWords(marks: Int32Array, taken: Int32Array): void {
  const length = Math.min(marks.length, taken.length);
  for (let i = 0; i < length; i++) {
    const seen = marks[i]!;
    if (seen === 0) continue;
    Atomics.or(taken, i, seen);
    Atomics.and(marks, i, ~seen);
  }
}

type Visit = (marks: Uint8Array, count: number, clear: boolean, found: (index: number) => void) => void;

/** Calls `found` for each mark, and clears the mark afterwards if `clear` is set. */
const forEachMark: Readonly<Record<Style, Visit>> = {
  bits(marks, count, clear, found) {
    const map = words(marks);
    for (let i = 0; i * 32 < count; i++) {
      const seen = map[i]!;
      if (seen === 0) continue;
      for (let bit = 0; bit < 32; bit++) if ((seen & (1 << bit)) !== 0) found(i * 32 + bit);
      if (clear) Atomics.and(map, i, ~seen);
    }
  },
  bytes(marks, count, clear, found) {
    const map = words(marks);
    for (let i = 0; i * 4 < count; i++) {
      if (map[i] === 0) continue;
      for (let byte = i * 4; byte < i * 4 + 4; byte++) {
        if (marks[byte] === 0) continue;
        found(byte);
        // Only this byte: its neighbours may have been marked in the meantime.
        if (clear) Atomics.store(marks, byte, 0);
      }
    }
  },
};

function words(bytes: Uint8Array): Int32Array {
  return new Int32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
}
