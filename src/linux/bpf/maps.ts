/** BPF maps: made, looked up and changed by bpf(2) (include/uapi/linux/bpf.h). Keys and values are bytes. */
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
  /** For maps of maps: one of the inner maps, which shows their shape. */
  readonly innerFd?: number;
  readonly name: string;
}

/** A file descriptor of the new map. EPERM: no right, or (before Linux 5.11) too little lockable memory. */
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

/** The value of a key; undefined where there is none. `size` is in bytes (per-CPU maps: of all processors). */
export function lookupMap(fd: number, key: Uint8Array, size: number): Buffer | undefined {
  const value = Buffer.alloc(size);
  return absent(() => bpf('mapLookup', element(fd, key, value), 'lookup')) ? undefined : value;
}

export function updateMap(fd: number, key: Uint8Array, value: Uint8Array): void {
  bpf('mapUpdate', element(fd, key, value), 'update');
}

/** False where there was no such key. */
export function deleteFromMap(fd: number, key: Uint8Array): boolean {
  return !absent(() => bpf('mapDelete', element(fd, key), 'delete'));
}

/** Keys of a hash map, one after the other; deleting the yielded key is allowed. */
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
 * The values of a hash map (since Linux 5.6). An entry that is there during the whole call is among them; one that
 * comes or goes meanwhile may be.
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
      // ENOSPC: one bucket holds more than a batch. ENOENT: this was the last one.
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

/** struct bpf_map_info of an open map. */
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

/** BPF_OBJ_GET_INFO_BY_FD; the kernel fills what it knows of the `size` bytes, the rest stays zero. */
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
