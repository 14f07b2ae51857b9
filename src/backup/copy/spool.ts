/**
 * Blocks of the device as a copying thread read them last. They are kept in memory until they are sent after the thaw,
 * or in a file on another device if memory has no room. Blocks of zeros take no room. Nothing here is in the heap of
 * the thread, which is small.
 */
import type { Bitmap } from '../../base/bitmap.ts';
import { formatBytes, isZero } from '../../base/bytes.ts';
import { AgentError } from '../../base/errors.ts';
import { SpillFile } from './spill-file.ts';
import { type SpoolRoom, slabSize } from './spool-room.ts';

/** The slot number of a block of zeros. */
const zeroSlot = -1;

/** The blocks of one granule of the target: a range that is sent as a whole, or has one fingerprint. */
export interface SpooledGranule {
  readonly offset: number;
  /** Bytes. The last granule of a device may be short. */
  readonly length: number;
  /** Offsets of its blocks that are in the spool, in order. */
  readonly blocks: readonly number[];
  /** True if these are all blocks of the granule. */
  readonly whole: boolean;
}

export class Spool {
  readonly #room: SpoolRoom;
  readonly #size: number;
  readonly #block: number;
  /** A slab in memory, or its position in the file. */
  readonly #slabs: (Buffer | number)[] = [];
  #file: SpillFile | undefined;
  #fileEnd = 0;
  readonly #freeSlots: number[] = [];
  #count = 0;
  #offsets = new Float64Array(1024);
  #slots = new Int32Array(1024);

  /** `size`: bytes of the device. `block`: bytes of a block; a power of two, at most a slab. */
  constructor(room: SpoolRoom, { size, block }: { readonly size: number; readonly block: number }) {
    this.#room = room;
    this.#size = size;
    this.#block = block;
  }

  /** Blocks in the spool. */
  get count(): number {
    return this.#count;
  }

  /**
   * Copies one block (the last one of the device may be short). Returns false if there is no room for it. `frozen`: the
   * call is inside the freeze.
   */
  add(offset: number, data: Uint8Array, { frozen = false }: { readonly frozen?: boolean } = {}): boolean {
    let slot = zeroSlot;
    if (!isZero(data)) {
      if (this.#freeSlots.length === 0 && !this.#grow(frozen)) return false;
      slot = this.#freeSlots.pop()!;
      if (!this.#store(slot, data)) return false;
    }
    if (this.#count === this.#offsets.length) this.#resize(this.#count * 2);
    this.#offsets[this.#count] = offset;
    this.#slots[this.#count++] = slot;
    return true;
  }

  /** Bytes of the blocks in the spool that are set in `wanted`. */
  bytesOf(wanted: Bitmap): number {
    let bytes = 0;
    for (let entry = 0; entry < this.#count; entry++) {
      const offset = this.#offsets[entry]!;
      if (wanted.has(Math.floor(offset / wanted.unit))) bytes += Math.min(this.#block, this.#size - offset);
    }
    return bytes;
  }

  /** Forgets the blocks that are not set in `keep`. A bit of `keep` covers at least one block. */
  retain(keep: Bitmap): void {
    let kept = 0;
    for (let entry = 0; entry < this.#count; entry++) {
      const [offset, slot] = [this.#offsets[entry]!, this.#slots[entry]!];
      if (keep.has(Math.floor(offset / keep.unit))) {
        this.#offsets[kept] = offset;
        this.#slots[kept++] = slot;
      } else if (slot !== zeroSlot) this.#freeSlots.push(slot);
    }
    this.#count = kept;
  }

  clear(): void {
    const memory = this.#slabs.filter((slab) => typeof slab !== 'number').length;
    this.#room.giveBack({ memory, files: this.#slabs.length - memory });
    this.#slabs.length = 0;
    this.#file?.close();
    this.#file = undefined;
    this.#fileEnd = 0;
    this.#freeSlots.length = 0;
    this.#count = 0;
    this.#resize(1024);
  }

  /** Returns the blocks in granules of `size` bytes, in the order of the device. */
  *granules(size: number): Generator<SpooledGranule> {
    this.#sort();
    for (let entry = 0; entry < this.#count;) {
      const first = this.#offsets[entry]!;
      const offset = first - (first % size);
      const length = Math.min(size, this.#size - offset);
      const blocks: number[] = [];
      for (; entry < this.#count && this.#offsets[entry]! < offset + length; entry++)
        blocks.push(this.#offsets[entry]!);
      yield { offset, length, blocks, whole: blocks.length === Math.ceil(length / this.#block) };
    }
  }

  /** Copies the blocks of a granule to their places in `into`, which starts at the start of the granule. */
  copyTo(granule: SpooledGranule, into: Uint8Array): void {
    let entry = this.#find(granule.blocks[0]!);
    for (const offset of granule.blocks) {
      const from = offset - granule.offset;
      const length = Math.min(this.#block, granule.length - from);
      const slot = this.#slots[entry++]!;
      if (slot === zeroSlot) into.fill(0, from, from + length);
      else this.#load(slot, into.subarray(from, from + length));
    }
  }

  #store(slot: number, data: Uint8Array): boolean {
    const { slab, at } = this.#place(slot);
    if (typeof slab === 'number') return this.#file!.write(data, slab + at);
    slab.set(data, at);
    return true;
  }

  #load(slot: number, into: Uint8Array): void {
    const { slab, at } = this.#place(slot);
    if (typeof slab === 'number') this.#file!.read(into, slab + at);
    else into.set(slab.subarray(at, at + into.length));
  }

  #place(slot: number): { slab: Buffer | number; at: number } {
    const perSlab = slabSize / this.#block;
    return { slab: this.#slabs[Math.floor(slot / perSlab)]!, at: (slot % perSlab) * this.#block };
  }

  #grow(frozen: boolean): boolean {
    const slab = this.#newSlab(frozen);
    if (slab === undefined) return false;
    const perSlab = slabSize / this.#block;
    const first = this.#slabs.push(slab) * perSlab - perSlab;
    for (let slot = first + perSlab - 1; slot >= first; slot--) this.#freeSlots.push(slot);
    return true;
  }

  #newSlab(frozen: boolean): Buffer | number | undefined {
    const kind = this.#room.take({ frozen });
    if (kind !== 'file') return kind && Buffer.allocUnsafeSlow(slabSize);
    this.#file ??= SpillFile.open(this.#room.setup.spill!.directory);
    if (this.#file === undefined) {
      this.#room.giveBack({ memory: 0, files: 1 });
      return undefined;
    }
    this.#fileEnd += slabSize;
    return this.#fileEnd - slabSize;
  }

  #resize(length: number): void {
    const [offsets, slots] = [new Float64Array(length), new Int32Array(length)];
    offsets.set(this.#offsets.subarray(0, this.#count));
    slots.set(this.#slots.subarray(0, this.#count));
    this.#offsets = offsets;
    this.#slots = slots;
  }

  /** Sorts by offset. Passes add blocks in order, so there is usually nothing to do. */
  #sort(): void {
    let sorted = true;
    for (let entry = 1; entry < this.#count && sorted; entry++)
      sorted = this.#offsets[entry - 1]! < this.#offsets[entry]!;
    if (sorted) return;
    const order = Uint32Array.from({ length: this.#count }, (_, entry) => entry);
    order.sort((a, b) => this.#offsets[a]! - this.#offsets[b]!);
    const [offsets, slots] = [this.#offsets, this.#slots];
    this.#offsets = Float64Array.from(order, (entry) => offsets[entry]!);
    this.#slots = Int32Array.from(order, (entry) => slots[entry]!);
  }

  #find(offset: number): number {
    let [low, high] = [0, this.#count];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#offsets[middle]! < offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** `bytes`: the bytes that all spools of the job may hold. */
export function spoolFull(target: string, bytes: number): AgentError {
  return new AgentError(
    'FREEZE_TOO_LONG',
    `more has changed since the last pass to ${target} than the ${formatBytes(bytes)} of memory and files that the job ` +
      'may use, and it has to be kept there while the filesystem is frozen',
    {
      hint:
        'start the backup again when the device is less busy, give the machine more memory, or put the state directory on a ' +
        'device that is not backed up with it',
    },
  );
}
