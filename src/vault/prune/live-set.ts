/**
 * The set of live names in bounded memory: 53 bits of each, sorted. Names beyond the capacity go to a file as sorted
 * runs, which are merged into one sorted file with an index in memory. 160 million chunks (10 TiB) need 1.3 GB of
 * disk and half a MiB of memory.
 *
 * Two names may share 53 bits. Then an unused chunk is kept, but a live chunk is never deleted. With 10 TiB live and
 * as much garbage, this happens to about three chunks.
 */
import fs from 'node:fs';
import { Descriptor } from '../../base/descriptor.ts';
import { writing } from '../../base/files.ts';
import { newId } from '../ids.ts';

/** Number of doubles of 8 bytes each: 32 MiB. */
const defaultCapacity = 4 * 1024 * 1024;
const bytesPerEntry = 8;
/** Entries of a block, which one lookup reads. */
const blockEntries = 4096;

export interface LiveSetOptions {
  /** Prefix for temporary files. They are unlinked as soon as they are open. */
  readonly path: string;
  /** Maximum number of names in memory. */
  readonly capacity?: number;
}

export class LiveSet {
  readonly #path: string;
  readonly #capacity: number;
  readonly #segments: Segment[] = [];
  #buffer: Float64Array;
  #count = 0;
  #runs: Runs | undefined;

  constructor({ path, capacity = defaultCapacity }: LiveSetOptions) {
    this.#path = path;
    this.#capacity = capacity;
    this.#buffer = new Float64Array(Math.min(capacity, 1024));
  }

  /** `has` finds the name only after `finish`. */
  add(name: Uint8Array): void {
    if (this.#count === this.#buffer.length) this.#makeRoom();
    this.#buffer[this.#count++] = keyOf(name);
  }

  /** Makes all added names visible to `has`. More names may be added and finished later. */
  finish(): void {
    if (this.#runs !== undefined) {
      this.#spill();
      this.#segments.push(this.#runs.merge(this.#path));
      this.#runs = undefined;
    } else if (this.#count > 0) {
      this.#segments.push(new MemorySegment(sortedUnique(this.#buffer.slice(0, this.#count))));
    }
    this.#count = 0;
    this.#buffer = new Float64Array(Math.min(this.#capacity, 1024));
  }

  has(name: Uint8Array): boolean {
    const key = keyOf(name);
    return this.#segments.some((segment) => segment.has(key));
  }

  /** Number of distinct keys, counted once per segment that has it. */
  get size(): number {
    return this.#segments.reduce((sum, segment) => sum + segment.size, 0);
  }

  close(): void {
    this.#runs?.close();
    for (const segment of this.#segments.splice(0)) segment.close();
  }

  #makeRoom(): void {
    if (this.#buffer.length < this.#capacity) {
      const larger = new Float64Array(Math.min(this.#capacity, this.#buffer.length * 4));
      larger.set(this.#buffer);
      this.#buffer = larger;
    } else this.#spill();
  }

  #spill(): void {
    this.#runs ??= new Runs(this.#path);
    this.#runs.add(sortedUnique(this.#buffer.subarray(0, this.#count)));
    this.#count = 0;
  }
}

/** Returns the first 53 bits, which a double holds exactly. Names are evenly distributed. */
function keyOf(name: Uint8Array): number {
  const high = ((name[0]! << 16) | (name[1]! << 8) | name[2]!) >>> 0;
  const low = ((name[3]! << 16) | (name[4]! << 8) | name[5]!) >>> 0;
  return (high * 2 ** 24 + low) * 32 + (name[6]! >> 3);
}

/** Sorts in place and returns a view of the same memory. */
function sortedUnique(keys: Float64Array): Float64Array {
  keys.sort();
  let count = 0;
  for (const key of keys) if (count === 0 || keys[count - 1] !== key) keys[count++] = key;
  return keys.subarray(0, count);
}

interface Segment {
  readonly size: number;
  has(key: number): boolean;
  close(): void;
}

class MemorySegment implements Segment {
  readonly #keys: Float64Array;

  constructor(keys: Float64Array) {
    this.#keys = keys;
  }

  get size(): number {
    return this.#keys.length;
  }

  has(key: number): boolean {
    return this.#keys[lowerBound(this.#keys, key)] === key;
  }

  close(): void {
    // No file is open.
  }
}

/** A sorted file. The first entry of each block and the last block read are in memory. */
class FileSegment implements Segment {
  readonly size: number;
  readonly #file: Descriptor;
  readonly #firsts: Float64Array;
  readonly #block = new Float64Array(blockEntries);
  #loaded = -1;
  #length = 0;

  constructor(file: Descriptor, size: number, firsts: Float64Array) {
    this.#file = file;
    this.size = size;
    this.#firsts = firsts;
  }

  has(key: number): boolean {
    const after = lowerBound(this.#firsts, key);
    const block = this.#firsts[after] === key ? after : after - 1;
    if (block < 0) return false;
    if (block !== this.#loaded) {
      this.#length = readEntries(this.#file, this.#block, block * blockEntries);
      this.#loaded = block;
    }
    const at = lowerBound(this.#block, key, this.#length);
    return at < this.#length && this.#block[at] === key;
  }

  close(): void {
    this.#file.close();
  }
}

/** Sorted runs, one after the other in one file. */
class Runs {
  readonly #file: Descriptor;
  readonly #ends: number[] = [];

  constructor(path: string) {
    this.#file = openUnlinked(path);
  }

  add(keys: Float64Array): void {
    const start = this.#ends.at(-1) ?? 0;
    writeEntries(this.#file, keys, start);
    this.#ends.push(start + keys.length);
  }

  merge(path: string): FileSegment {
    const out = openUnlinked(path);
    const heap = new RunHeap(
      this.#ends.map((end, run) => new RunReader(this.#file, run === 0 ? 0 : this.#ends[run - 1]!, end)),
    );
    const block = new Float64Array(blockEntries);
    const firsts: number[] = [];
    let size = 0;
    let filled = 0;
    let last = -1;
    for (let key = heap.next(); key !== undefined; key = heap.next()) {
      if (key === last) continue;
      last = key;
      if (filled === 0) firsts.push(key);
      block[filled++] = key;
      size++;
      if (filled < blockEntries) continue;
      writeEntries(out, block, size - filled);
      filled = 0;
    }
    writeEntries(out, block.subarray(0, filled), size - filled);
    this.close();
    return new FileSegment(out, size, Float64Array.from(firsts));
  }

  close(): void {
    this.#file.close();
  }
}

class RunReader {
  key: number | undefined;
  readonly #file: Descriptor;
  readonly #buffer = new Float64Array(blockEntries);
  #next: number;
  readonly #end: number;
  #at = 0;
  #length = 0;

  constructor(file: Descriptor, start: number, end: number) {
    this.#file = file;
    this.#next = start;
    this.#end = end;
    this.advance();
  }

  advance(): void {
    if (this.#at === this.#length) {
      const want = Math.min(blockEntries, this.#end - this.#next);
      this.#length = want === 0 ? 0 : readEntries(this.#file, this.#buffer.subarray(0, want), this.#next);
      this.#next += this.#length;
      this.#at = 0;
    }
    this.key = this.#at < this.#length ? this.#buffer[this.#at++] : undefined;
  }
}

/** A heap with the smallest key of all runs on top. */
class RunHeap {
  readonly #runs: RunReader[];

  constructor(runs: readonly RunReader[]) {
    this.#runs = runs.filter(({ key }) => key !== undefined);
    for (let at = this.#runs.length >> 1; at >= 0; at--) this.#sink(at);
  }

  next(): number | undefined {
    const first = this.#runs[0];
    const key = first?.key;
    if (first === undefined || key === undefined) return undefined;
    first.advance();
    if (first.key === undefined) {
      const last = this.#runs.pop()!;
      if (this.#runs.length > 0) this.#runs[0] = last;
    }
    this.#sink(0);
    return key;
  }

  #sink(from: number): void {
    const runs = this.#runs;
    for (let at = from; ;) {
      let least = at;
      for (const child of [2 * at + 1, 2 * at + 2])
        if (child < runs.length && runs[child]!.key! < runs[least]!.key!) least = child;
      if (least === at) return;
      [runs[at], runs[least]] = [runs[least]!, runs[at]!];
      at = least;
    }
  }
}

/** Returns the first index of the sorted keys whose entry is not less than `key`. */
function lowerBound(keys: Float64Array, key: number, length = keys.length): number {
  let from = 0;
  let to = length;
  while (from < to) {
    const middle = (from + to) >> 1;
    if (keys[middle]! < key) from = middle + 1;
    else to = middle;
  }
  return from;
}

function openUnlinked(path: string): Descriptor {
  const full = `${path}-${newId()}`;
  const fd = fs.openSync(full, 'wx+', 0o600);
  fs.unlinkSync(full);
  return new Descriptor(fd, full);
}

function writeEntries(file: Descriptor, keys: Float64Array, at: number): void {
  const bytes = new Uint8Array(keys.buffer, keys.byteOffset, keys.byteLength);
  writing(file.name, () => {
    for (let done = 0; done < bytes.length;)
      done += fs.writeSync(file.fd, bytes, done, bytes.length - done, at * bytesPerEntry + done);
  });
}

/** Returns the number of entries read. */
function readEntries(file: Descriptor, keys: Float64Array, at: number): number {
  const bytes = new Uint8Array(keys.buffer, keys.byteOffset, keys.byteLength);
  let done = 0;
  while (done < bytes.length) {
    const got = fs.readSync(file.fd, bytes, done, bytes.length - done, at * bytesPerEntry + done);
    if (got === 0) break;
    done += got;
  }
  return done / bytesPerEntry;
}
