/** The filesystem of BPF pins, and the limit of locked memory that maps counted against before Linux 5.11. */
import { statfsSync } from 'node:fs';
import { checked, declare } from './libc.ts';

/** BPF_FS_MAGIC, include/uapi/linux/magic.h. */
const magic = 0xcafe4a11;
const RLIMIT_MEMLOCK = 8;

const mountCall = declare<
  [source: string, target: string, type: string, flags: number, options: string | null]
>('mount', 'int', ['const char *', 'const char *', 'const char *', 'uint64', 'const char *']);
const setrlimit = declare<[resource: number, limits: Uint8Array]>('setrlimit', 'int', ['int', 'void *']);

/** True where the path exists and lies on a bpffs. */
export function isBpffs(path: string): boolean {
  try {
    return statfsSync(path).type === magic;
  } catch {
    return false;
  }
}

/** Mounts a bpffs for root alone on an existing directory. */
export function mountBpffs(directory: string): void {
  checked(mountCall, ['bpf', directory, 'bpf', 0, 'mode=0700'], 'mount', `bpffs on ${directory}`);
}

/**
 * Lets this process lock as much memory as it likes, where it has CAP_SYS_RESOURCE; false where it has not. Kernels
 * since 5.11 count maps elsewhere and do not need it.
 */
export function raiseLockedMemoryLimit(): boolean {
  return setrlimit(RLIMIT_MEMLOCK, Buffer.alloc(16, 0xff)) === 0;
}
