/** Makes, reads and changes BPF maps with bpf(2) (include/uapi/linux/bpf.h). Keys and values are bytes. */
import { errnoCode } from '../../base/errors.ts';
import { Attributes, bpf } from './syscall.ts';

/** enum bpf_map_type. */
const mapTypes = { hash: 1, array: 2, perCpuArray: 6, hashOfMaps: 13 } as const;
/** BPF_F_MMAPABLE (5.5): mmap works. BPF_F_INNER_MAP (5.10): inner maps of one outer map may differ in size. */
export const mapFlags = { mmapable: 1 << 10, innerMap: 1 << 12 } as const;

export interface MapOptions {
  readonly type: keyof typeof mapTypes;
  readonly keySize: number;
  /** Bytes. */
  readonly valueSize: number;
  readonly entries: number;
  readonly flags?: number;
  /** For maps of maps: one of the inner maps, as a template for the others. */
  readonly innerFd?: number;
  readonly name: string;
}

/** Makes a map and returns its descriptor. EPERM: no permission, or (before Linux 5.11) too little lockable memory. */
export function createMap(options: MapOptions): number {
  const attributes = new Attributes(72)
    .u32(0, mapTypes[options.type])
    .u32(4, options.keySize)
    .u32(8, options.valueSize)
    .u32(12, options.entries)
    .u32(16, options.flags ?? 0)
    .u32(20, options.innerFd ?? 0)
    .name(28, options.name);
  return bpf('mapCreate', attributes, `${options.name}, ${options.entries} x ${options.valueSize} bytes`);
}

/** Returns the value of a key, or undefined. `size` is in bytes (for per-CPU maps: of all processors together). */
export function lookupMap(fd: number, key: Uint8Array, size: number): Buffer | undefined {
  const value = Buffer.alloc(size);
  return absent(() => bpf('mapLookup', element(fd, key, value), 'lookup')) ? undefined : value;
}

export function updateMap(fd: number, key: Uint8Array, value: Uint8Array): void {
  bpf('mapUpdate', element(fd, key, value), 'update');
}

/** Deletes a key. Returns false if the map did not have it. */
export function deleteFromMap(fd: number, key: Uint8Array): boolean {
  return !absent(() => bpf('mapDelete', element(fd, key), 'delete'));
}

/** Returns the keys of a hash map. */
export function mapKeys(fd: number, keySize: number): Buffer[] {
  const keys: Buffer[] = [];
  for (let previous: Buffer | undefined; ;) {
    const next = Buffer.alloc(keySize);
    const attributes = new Attributes(32).u32(0, fd).pointer(16, next);
    if (previous !== undefined) attributes.pointer(8, previous);
    if (absent(() => bpf('mapNextKey', attributes, 'next key'))) return keys;
    keys.push(next);
    previous = next;
  }
}

/**
 * Returns the values of a hash map (since Linux 5.6). Entries that exist during the whole call are included. Entries
 * that are added or removed during the call may be included.
 */
export function mapValues(fd: number, keySize: number, valueSize: number, entries: number): Buffer[] {
  const values: Buffer[] = [];
  let batch = Math.min(entries, 4096);
  let position: Buffer | undefined;
  for (;;) {
    const keys = Buffer.alloc(keySize * batch);
    const found = Buffer.alloc(valueSize * batch);
    const next = Buffer.alloc(8);
    const attributes = new Attributes(56)
      .pointer(8, next)
      .pointer(16, keys)
      .pointer(24, found)
      .u32(32, batch)
      .u32(36, fd);
    if (position !== undefined) attributes.pointer(0, position);
    let last = false;
    try {
      bpf('mapLookupBatch', attributes, 'lookup batch');
    } catch (thrown) {
      // ENOSPC: one bucket has more entries than the batch. ENOENT: this was the last batch.
      if (errnoCode(thrown) === 'ENOSPC' && batch < entries) {
        batch = Math.min(entries, batch * 4);
        continue;
      }
      if (errnoCode(thrown) !== 'ENOENT') throw thrown;
      last = true;
    }
    const count = attributes.bytes.readUInt32LE(32);
    for (let i = 0; i < count; i++) values.push(found.subarray(i * valueSize, (i + 1) * valueSize));
    if (last) return values;
    position = next;
  }
}

export interface MapInfo {
  readonly type: number;
  readonly id: number;
  readonly valueSize: number;
  readonly entries: number;
  readonly name: string;
}

/** Returns the struct bpf_map_info of an open map. */
export function mapInfo(fd: number): MapInfo {
  const info = objectInfo(fd, 88);
  return {
    type: info.readUInt32LE(0),
    id: info.readUInt32LE(4),
    valueSize: info.readUInt32LE(12),
    entries: info.readUInt32LE(16),
    name: info.toString('latin1', 24, 40).split('\0')[0]!,
  };
}

/** Calls BPF_OBJ_GET_INFO_BY_FD. The kernel fills the `known` first of the `size` bytes; the others stay zero. */
export function objectInfo(fd: number, size: number): Buffer & { known?: number } {
  const info = Buffer.alloc(size);
  const attributes = new Attributes(16).u32(0, fd).u32(4, size).pointer(8, info);
  bpf('infoByFd', attributes, 'object info');
  return Object.assign(info, { known: attributes.bytes.readUInt32LE(4) });
}

function element(fd: number, key: Uint8Array, value?: Uint8Array): Attributes {
  const attributes = new Attributes(32).u32(0, fd).pointer(8, key);
  return value === undefined ? attributes : attributes.pointer(16, value);
}

function absent(call: () => unknown): boolean {
  try {
    call();
    return false;
  } catch (thrown) {
    if (errnoCode(thrown) === 'ENOENT') return true;
    throw thrown;
  }
}
