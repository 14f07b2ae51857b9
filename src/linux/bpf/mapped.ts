/** Maps an array map (BPF_F_MMAPABLE) into memory: BPF programs and this process then share the bytes. */
import koffi from 'koffi';
import { libc, SystemCallError } from '../libc.ts';

const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;

const mmap = libc.func('mmap', 'void *', ['void *', 'size_t', 'int', 'int', 'int', 'int64']) as (
  address: null,
  length: number,
  protection: number,
  flags: number,
  fd: number,
  offset: number,
) => bigint | null;
const munmap = libc.func('munmap', 'int', ['void *', 'size_t']) as (
  address: bigint,
  length: number,
) => number;

export interface MappedMap {
  /** Do not use this after `unmap`, which removes its pages. */
  readonly memory: ArrayBuffer;
  unmap(): void;
}

/** Maps the first `length` bytes of the values. */
export function mapIntoMemory(fd: number, length: number): MappedMap {
  const address = mmap(null, length, PROT_READ_WRITE, MAP_SHARED, fd, 0);
  if (address === null || BigInt.asIntN(64, address) === -1n)
    throw new SystemCallError('mmap', koffi.errno(), `${length} bytes of a BPF map`);
  return {
    memory: koffi.view(address, length),
    unmap: () => void munmap(address, length),
  };
}
