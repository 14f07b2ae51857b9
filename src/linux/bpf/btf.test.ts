/** Uses a small BTF made here, and the BTF of this kernel if it has one. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { Btf } from './btf.ts';

const kind = { int: 1, pointer: 2, struct: 4, union: 5, enum: 6, typedef: 8, constant: 10, prototype: 13 };

class Writer {
  #strings = Buffer.from('\0');
  readonly #types: Buffer[] = [];

  name(text: string): number {
    if (text === '') return 0;
    const at = this.#strings.length;
    this.#strings = Buffer.concat([this.#strings, Buffer.from(`${text}\0`)]);
    return at;
  }

  /** Adds a type. `words` come after the three that every type has. Returns the ID. */
  add(
    name: string,
    info: { kind: number; count?: number; flag?: boolean },
    value: number,
    words: number[] = [],
  ): number {
    const word = ((info.flag === true ? 1 << 31 : 0) | (info.kind << 24) | (info.count ?? 0)) >>> 0;
    const type = Buffer.alloc(12 + words.length * 4);
    [this.name(name), word, value, ...words].forEach((each, i) => type.writeUInt32LE(each >>> 0, i * 4));
    this.#types.push(type);
    return this.#types.length;
  }

  finish(): Buffer {
    const types = Buffer.concat(this.#types);
    const header = Buffer.alloc(24);
    header.writeUInt16LE(0xeb9f, 0);
    header.writeUInt8(1, 2);
    [24, 0, types.length, types.length, this.#strings.length].forEach((each, i) =>
      header.writeUInt32LE(each, 4 + i * 4),
    );
    return Buffer.concat([header, types, this.#strings]);
  }
}

function sample(): Btf {
  const w = new Writer();
  const u64 = w.add('u64', { kind: kind.int }, 8, [64]);
  const iter = w.add('bvec_iter', { kind: kind.struct, count: 2 }, 16, [
    w.name('bi_sector'),
    u64,
    0,
    w.name('bi_size'),
    u64,
    64,
  ]);
  const constant = w.add('', { kind: kind.constant }, iter);
  const pointer = w.add('', { kind: kind.pointer }, iter);
  const unnamed = w.add('', { kind: kind.union, count: 2 }, 8, [
    w.name('bi_next'),
    pointer,
    0,
    w.name('bi_other'),
    u64,
    0,
  ]);
  const bio = w.add('bio', { kind: kind.struct, count: 3, flag: true }, 32, [
    0,
    unnamed,
    64,
    w.name('bi_iter'),
    constant,
    128,
    w.name('bits'),
    u64,
    (3 << 24) | 257,
  ]);
  const bioPointer = w.add('', { kind: kind.pointer }, bio);
  const prototype = w.add('', { kind: kind.prototype, count: 3 }, 0, [0, pointer, 0, u64, 0, bioPointer]);
  const functionPointer = w.add('', { kind: kind.pointer }, prototype);
  w.add('btf_trace_block_bio_queue', { kind: kind.typedef }, functionPointer);
  w.add('req_op', { kind: kind.enum, count: 2 }, 4, [w.name('REQ_OP_READ'), 0, w.name('REQ_OP_DISCARD'), 3]);
  return new Btf(w.finish());
}

test('fields are found by path, through unnamed members and qualifiers', () => {
  const btf = sample();
  assert.deepEqual(btf.field('bio', 'bi_iter.bi_size'), { offset: 24, size: 8 });
  assert.deepEqual(btf.field('bio', 'bi_next'), { offset: 8, size: 8 });
  assert.equal(btf.field('bio', 'bi_iter.nothing'), undefined);
  assert.equal(btf.field('nothing', 'bi_iter'), undefined);
  // A bit field that does not begin at a byte has no offset.
  assert.equal(btf.field('bio', 'bits'), undefined);
});

test('tracepoints have an id and the names of their arguments', () => {
  const found = sample().tracepoint('block_bio_queue');
  assert.deepEqual(found?.parameters, ['u64', 'bio']);
  assert.equal(sample().tracepoint('block_nothing'), undefined);
});

test('enumerators have their values', () => {
  assert.equal(sample().enumerator('req_op', 'REQ_OP_DISCARD'), 3);
  assert.equal(sample().enumerator('req_op', 'REQ_OP_NOTHING'), undefined);
});

test('data that is not BTF, is truncated or has unknown kinds is refused, and the message has the numbers', () => {
  assert.throws(() => new Btf(Buffer.alloc(100)), /0xeb9f/);
  const w = new Writer();
  w.add('u64', { kind: kind.int }, 8, [64]);
  assert.throws(() => new Btf(w.finish().subarray(0, 40)), /cut off: 40 bytes of 45/);
  const strange = new Writer();
  strange.add('x', { kind: 30 }, 0);
  assert.throws(() => new Btf(strange.finish()), /unknown kind 30/);
});

test('the types of this kernel include bios', { skip: !existsSync('/sys/kernel/btf/vmlinux') }, () => {
  const btf = new Btf(readFileSync('/sys/kernel/btf/vmlinux'));
  assert.ok((btf.field('bio', 'bi_iter.bi_sector')?.size ?? 0) >= 4);
});
