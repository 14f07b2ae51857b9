/**
 * An assembler for eBPF programs. Its methods append instructions, and `assemble` resolves the labels. Pure.
 *
 * An instruction is 8 bytes, little-endian: opcode u8, destination and source register u8 (low and high nibble),
 * offset s16, immediate s32. Source: Documentation/bpf/standardization/instruction-set.rst, include/uapi/linux/bpf.h.
 *
 * Registers are numbers: 0 is the result, 1 to 5 are arguments. A call loses 1 to 5 and keeps 6 to 9. Register 10
 * is the end of the frame (read-only).
 */

export type Register = 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10;
/** Bytes of a load or store. */
export type Width = 1 | 2 | 4 | 8;

const widths: Readonly<Record<Width, number>> = { 1: 0x10, 2: 0x08, 4: 0x00, 8: 0x18 };
const arithmetic = {
  add: 0x00,
  sub: 0x10,
  mul: 0x20,
  or: 0x40,
  and: 0x50,
  lsh: 0x60,
  rsh: 0x70,
  xor: 0xa0,
  mov: 0xb0,
} as const;
const conditions = {
  eq: 0x10,
  gt: 0x20,
  ge: 0x30,
  set: 0x40,
  ne: 0x50,
  lt: 0xa0,
  le: 0xb0,
} as const;

export type Arithmetic = keyof typeof arithmetic;
/** Unsigned comparisons. `set` is true if both have any bit in common. */
export type Condition = keyof typeof conditions;

const BPF_K = 0;
const BPF_X = 8;
const ALU64 = 0x07;
const JMP = 0x05;
const PSEUDO_MAP_FD = 1;
const PSEUDO_MAP_VALUE = 2;

interface Instruction {
  readonly opcode: number;
  readonly dst: number;
  readonly src: number;
  readonly offset: number;
  readonly immediate: number;
  readonly label: string | undefined;
}

export class Assembler {
  readonly #instructions: Instruction[] = [];
  readonly #labels = new Map<string, number>();

  /** Number of instructions so far. A 64-bit load counts as two. */
  get length(): number {
    return this.#instructions.length;
  }

  /** Names the next instruction. */
  label(name: string): this {
    if (this.#labels.has(name)) throw new RangeError(`label ${name} is there twice`);
    this.#labels.set(name, this.#instructions.length);
    return this;
  }

  /** dst = dst OP immediate, in 64 bits. The immediate has 32 bits and is sign-extended. */
  alu(operation: Arithmetic, dst: Register, immediate: number): this {
    return this.#put(ALU64 | BPF_K | arithmetic[operation], dst, 0, 0, immediate);
  }

  /** dst = dst OP src. */
  aluReg(operation: Arithmetic, dst: Register, src: Register): this {
    return this.#put(ALU64 | BPF_X | arithmetic[operation], dst, src, 0, 0);
  }

  mov(dst: Register, immediate: number): this {
    return this.alu('mov', dst, immediate);
  }

  movReg(dst: Register, src: Register): this {
    return this.aluReg('mov', dst, src);
  }

  /** dst = the 64 bits of `value`. */
  load64(dst: Register, value: bigint): this {
    return this.#wide(dst, 0, Number(BigInt.asIntN(32, value)), Number(BigInt.asIntN(32, value >> 32n)));
  }

  /** dst = the map that is open as `fd` in the loading process. */
  mapFd(dst: Register, fd: number): this {
    return this.#wide(dst, PSEUDO_MAP_FD, fd, 0);
  }

  /** dst = address of byte `offset` of the first value of an array map (since Linux 5.2). */
  mapValue(dst: Register, fd: number, offset: number): this {
    return this.#wide(dst, PSEUDO_MAP_VALUE, fd, offset);
  }

  /** dst = *(src + offset), zero-extended. */
  load(width: Width, dst: Register, src: Register, offset: number): this {
    return this.#put(0x61 | widths[width], dst, src, offset, 0);
  }

  /** *(dst + offset) = src. */
  store(width: Width, dst: Register, offset: number, src: Register): this {
    return this.#put(0x63 | widths[width], dst, src, offset, 0);
  }

  /** *(dst + offset) = immediate. */
  storeImmediate(width: Width, dst: Register, offset: number, immediate: number): this {
    return this.#put(0x62 | widths[width], dst, 0, offset, immediate);
  }

  /** *(u64 *)(dst + offset) += src, atomically (any kernel). */
  atomicAdd(dst: Register, offset: number, src: Register): this {
    return this.#put(0xc3 | widths[8], dst, src, offset, 0);
  }

  /** *(u64 *)(dst + offset) |= src, atomically (since Linux 5.12). */
  atomicOr(dst: Register, offset: number, src: Register): this {
    return this.#put(0xc3 | widths[8], dst, src, offset, 0x40);
  }

  /** Goes to `label` if dst CONDITION immediate (32 bits, sign-extended). Compares unsigned, in 64 bits. */
  jump(condition: Condition, dst: Register, immediate: number, label: string): this {
    return this.#put(JMP | BPF_K | conditions[condition], dst, 0, 0, immediate, label);
  }

  jumpReg(condition: Condition, dst: Register, src: Register, label: string): this {
    return this.#put(JMP | BPF_X | conditions[condition], dst, src, 0, 0, label);
  }

  goto(label: string): this {
    return this.#put(JMP, 0, 0, 0, 0, label);
  }

  /** Calls a helper of the kernel by its number (enum bpf_func_id). */
  call(helper: number): this {
    return this.#put(0x85, 0, 0, 0, helper);
  }

  exit(): this {
    return this.#put(0x95, 0, 0, 0, 0);
  }

  /** Returns the program's bytes. Throws RangeError if a label is missing or too far away. */
  assemble(): Buffer {
    const code = Buffer.alloc(this.#instructions.length * 8);
    this.#instructions.forEach((instruction, index) => {
      const at = index * 8;
      code.writeUInt8(instruction.opcode, at);
      code.writeUInt8((instruction.src << 4) | instruction.dst, at + 1);
      code.writeInt16LE(
        instruction.label === undefined ? instruction.offset : this.#distance(instruction.label, index),
        at + 2,
      );
      code.writeInt32LE(instruction.immediate | 0, at + 4);
    });
    return code;
  }

  /** Instructions between the one after `from` and the label. */
  #distance(label: string, from: number): number {
    const target = this.#labels.get(label);
    if (target === undefined) throw new RangeError(`there is no label ${label}`);
    const distance = target - from - 1;
    if (distance < -32768 || distance > 32767)
      throw new RangeError(`label ${label} is ${distance} instructions away, more than 32767`);
    return distance;
  }

  #wide(dst: Register, src: number, low: number, high: number): this {
    return this.#put(0x18, dst, src, 0, low).#put(0, 0, 0, 0, high);
  }

  #put(opcode: number, dst: number, src: number, offset: number, immediate: number, label?: string): this {
    this.#instructions.push({ opcode, dst, src, offset, immediate, label });
    return this;
  }
}

/** Helpers (enum bpf_func_id). */
export const helpers = {
  mapLookup: 1,
  mapUpdate: 2,
  mapDelete: 3,
  ktimeGetNs: 5,
  probeReadKernel: 113,
} as const;
