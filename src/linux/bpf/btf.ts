/**
 * Reads the kernel's description of its types (BTF), to find the offsets of the fields that our BPF programs read.
 * Pure, over the bytes of /sys/kernel/btf/vmlinux. Source: Documentation/bpf/btf.rst, include/uapi/linux/btf.h.
 *
 *     header: magic u16 0xeb9f, version u8, flags u8, header length u32,
 *             type offset u32, type length u32, string offset u32, string length u32
 *
 *     a type: name u32, info u32 (vlen 0-15, kind 24-28, kind flag 31), size or type u32, then the data of its kind
 */

const kinds = { int: 1, pointer: 2, array: 3, struct: 4, union: 5, enum: 6, typedef: 8 } as const;
const functionPrototype = 13;

/** Bytes after the 12 bytes that all types have: a fixed number, and a number for each of the vlen members. */
const extras: Readonly<Record<number, readonly [fixed: number, each: number]>> = {
  1: [4, 0],
  3: [12, 0],
  4: [0, 12],
  5: [0, 12],
  6: [0, 8],
  13: [0, 8],
  14: [4, 0],
  15: [0, 12],
  17: [4, 0],
  19: [0, 12],
};
/** The kinds that wrap another type: typedef, volatile, const, restrict, type tag. */
const wrappers = new Set([8, 9, 10, 11, 18]);
const lastKnownKind = 19;

interface TypeRecord {
  readonly at: number;
  readonly name: string;
  readonly kind: number;
  readonly count: number;
  readonly kindFlag: boolean;
  /** Size in bytes, or the ID of the type that it refers to. */
  readonly value: number;
}

export interface FieldPlace {
  /** Bytes from the beginning of the outermost struct. */
  readonly offset: number;
  /** Bytes. */
  readonly size: number;
}

export class Btf {
  readonly #data: Buffer;
  readonly #strings: Buffer;
  /** Offsets of the types in #data. IDs count from 1. */
  readonly #offsets: number[] = [];
  readonly #byName = new Map<string, number>();

  /** Throws RangeError with the reason if the bytes are not the complete BTF of a kernel. */
  constructor(bytes: Uint8Array) {
    const data = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (data.length < 24 || data.readUInt16LE(0) !== 0xeb9f)
      throw new RangeError('not BTF: it does not begin with 0xeb9f');
    const header = data.readUInt32LE(4);
    const typesAt = header + data.readUInt32LE(8);
    const typesEnd = typesAt + data.readUInt32LE(12);
    const stringsAt = header + data.readUInt32LE(16);
    const stringsEnd = stringsAt + data.readUInt32LE(20);
    if (typesEnd > data.length || stringsEnd > data.length)
      throw new RangeError(`BTF is cut off: ${data.length} bytes of ${Math.max(typesEnd, stringsEnd)}`);
    this.#data = data.subarray(0, typesEnd);
    this.#strings = data.subarray(stringsAt, stringsEnd);
    for (let at = typesAt; at < typesEnd;) {
      const info = data.readUInt32LE(at + 4);
      const kind = (info >>> 24) & 0x1f;
      // The length of an unknown kind is unknown too, so the types after it cannot be read.
      if (kind > lastKnownKind) throw new RangeError(`BTF holds a type of the unknown kind ${kind}`);
      this.#offsets.push(at);
      const [fixed, each] = extras[kind] ?? [0, 0];
      at += 12 + fixed + each * (info & 0xffff);
    }
  }

  /** Returns the place of a field, by a path of names: `bi_iter.bi_sector`. Unnamed structs and unions are searched. */
  field(struct: string, path: string): FieldPlace | undefined {
    const id = this.#find(struct, kinds.struct);
    return id === undefined ? undefined : this.#member(id, path.split('.'));
  }

  /** Returns the value of an enumerator; undefined if the enum does not exist or has no enumerator of this name. */
  enumerator(enumName: string, name: string): number | undefined {
    const id = this.#find(enumName, kinds.enum);
    if (id === undefined) return undefined;
    const { at, count } = this.#type(id);
    for (let i = 0; i < count; i++)
      if (this.#string(this.#data.readUInt32LE(at + 12 + i * 8)) === name)
        return this.#data.readInt32LE(at + 16 + i * 8);
    return undefined;
  }

  /**
   * Returns a tracepoint: the ID of its `btf_trace_NAME`, and the types of its arguments. For a pointer, the type is
   * the name of the struct that it points to. Programs get the arguments as u64 at 8 times the index.
   */
  tracepoint(name: string): { readonly id: number; readonly parameters: readonly string[] } | undefined {
    const id = this.#find(`btf_trace_${name}`, kinds.typedef);
    if (id === undefined) return undefined;
    const pointer = this.#type(this.#type(id).value);
    const prototype = this.#type(pointer.value);
    if (prototype.kind !== functionPrototype) return undefined;
    const parameters: string[] = [];
    // The first parameter is the private data of the program that attached.
    for (let i = 1; i < prototype.count; i++) {
      const type = this.#type(this.#unwrap(this.#data.readUInt32LE(prototype.at + 12 + i * 8 + 4)));
      parameters.push(type.kind === kinds.pointer ? this.#type(this.#unwrap(type.value)).name : type.name);
    }
    return { id, parameters };
  }

  #member(structId: number, [name, ...rest]: readonly string[]): FieldPlace | undefined {
    const found = this.#direct(structId, name!);
    if (found === undefined || found.bit % 8 !== 0) return undefined;
    const type = this.#unwrap(found.type);
    const offset = found.bit / 8;
    if (rest.length === 0) {
      const { kind, value } = this.#type(type);
      return { offset, size: kind === kinds.pointer ? 8 : value };
    }
    const inner = this.#member(type, rest);
    return inner === undefined ? undefined : { offset: offset + inner.offset, size: inner.size };
  }

  #direct(structId: number, name: string): { bit: number; type: number } | undefined {
    const { at, count, kind, kindFlag } = this.#type(structId);
    if (kind !== kinds.struct && kind !== kinds.union) return undefined;
    for (let i = 0; i < count; i++) {
      const member = at + 12 + i * 12;
      const type = this.#data.readUInt32LE(member + 4);
      const place = this.#data.readUInt32LE(member + 8);
      const bit = kindFlag ? place & 0xffffff : place;
      const own = this.#string(this.#data.readUInt32LE(member));
      if (own === name) return { bit, type };
      if (own !== '') continue;
      const inner = this.#direct(this.#unwrap(type), name);
      if (inner !== undefined) return { bit: bit + inner.bit, type: inner.type };
    }
    return undefined;
  }

  #unwrap(id: number): number {
    let type = this.#type(id);
    while (wrappers.has(type.kind)) {
      id = type.value;
      type = this.#type(id);
    }
    return id;
  }

  /** Returns the type with this ID. ID 0 is void. */
  #type(id: number): TypeRecord {
    if (id === 0) return { at: 0, name: 'void', kind: 0, count: 0, kindFlag: false, value: 0 };
    const at = this.#offsets[id - 1];
    if (at === undefined) throw new RangeError(`BTF has no type ${id}`);
    const info = this.#data.readUInt32LE(at + 4);
    return {
      at,
      name: this.#string(this.#data.readUInt32LE(at)),
      kind: (info >>> 24) & 0x1f,
      count: info & 0xffff,
      kindFlag: info >>> 31 === 1,
      value: this.#data.readUInt32LE(at + 8),
    };
  }

  #find(name: string, kind: number): number | undefined {
    if (this.#byName.size === 0) this.#index();
    return this.#byName.get(`${kind} ${name}`);
  }

  /** Builds the index of all names. If a kind and name occur twice, the first one is used. */
  #index(): void {
    const wanted = new Set<number>([kinds.struct, kinds.enum, kinds.typedef]);
    this.#offsets.forEach((at, index) => {
      const kind = (this.#data.readUInt32LE(at + 4) >>> 24) & 0x1f;
      if (!wanted.has(kind)) return;
      const key = `${kind} ${this.#string(this.#data.readUInt32LE(at))}`;
      if (!this.#byName.has(key)) this.#byName.set(key, index + 1);
    });
  }

  #string(offset: number): string {
    const end = this.#strings.indexOf(0, offset);
    return this.#strings.toString('latin1', offset, end < 0 ? undefined : end);
  }
}
