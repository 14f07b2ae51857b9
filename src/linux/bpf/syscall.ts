/**
 * bpf(2): one call with a command and a union of attributes. The layouts are in include/uapi/linux/bpf.h. The other
 * files of this folder fill the attributes. `Attributes` keeps the memory alive that the attributes point to.
 */
import { addressOf, checked, checkedAsync, declare } from '../libc.ts';

/** enum bpf_cmd. */
const commands = {
  mapCreate: 0,
  mapLookup: 1,
  mapUpdate: 2,
  mapDelete: 3,
  mapNextKey: 4,
  progLoad: 5,
  objPin: 6,
  objGet: 7,
  infoByFd: 15,
  rawTracepointOpen: 17,
  mapLookupBatch: 24,
} as const;

/** __NR_bpf. */
const number = process.arch === 'arm64' ? 280 : 321;

const syscall = declare<[number: number, command: number, attributes: Uint8Array, size: number]>(
  'syscall',
  'long',
  ['long', 'int64', 'void *', 'int64'],
);

/** Builds the attributes of a call. Offsets are those of `union bpf_attr`. */
export class Attributes {
  readonly bytes: Buffer;
  readonly #held: Uint8Array[] = [];

  constructor(size: number) {
    this.bytes = Buffer.alloc(size);
  }

  u32(offset: number, value: number): this {
    this.bytes.writeUInt32LE(value >>> 0, offset);
    return this;
  }

  u64(offset: number, value: number): this {
    this.bytes.writeBigUInt64LE(BigInt(value), offset);
    return this;
  }

  /** Writes the address of `data`, and keeps `data` alive as long as these attributes. */
  pointer(offset: number, data: Uint8Array): this {
    this.#held.push(data);
    this.bytes.writeBigUInt64LE(addressOf(data), offset);
    return this;
  }

  /** Writes the name of a map or program, of at most 15 characters. */
  name(offset: number, name: string): this {
    this.bytes.write(name.slice(0, 15), offset, 'latin1');
    return this;
  }
}

/** Makes the call and returns its result. Throws SystemCallError; `about` names the object in the message. */
export function bpf(command: keyof typeof commands, attributes: Attributes, about: string): number {
  return checked(
    syscall,
    [number, commands[command], attributes.bytes, attributes.bytes.length],
    `bpf ${command}`,
    about,
  );
}

/** `bpf` on a thread of the pool, for calls that take long: the verifier may run for a second. */
export function bpfAsync(
  command: keyof typeof commands,
  attributes: Attributes,
  about: string,
): Promise<number> {
  const args: [number, number, Uint8Array, number] = [
    number,
    commands[command],
    attributes.bytes,
    attributes.bytes.length,
  ];
  return checkedAsync(syscall, args, `bpf ${command}`, about);
}

/** Returns the text as a C string. */
export function cString(text: string): Buffer {
  return Buffer.from(`${text}\0`);
}
