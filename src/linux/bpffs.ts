/** The filesystem of BPF pins, and the limit of locked memory. Before Linux 5.11, maps counted as locked memory. */
import { statfsSync } from 'node:fs';
import { checked, declare } from './libc.ts';

/** BPF_FS_MAGIC, include/uapi/linux/magic.h. */
const magic = 0xcafe4a11;
const RLIMIT_MEMLOCK = 8;

const mountCall = declare<
  [source: string, target: string, type: string, flags: number, options: string | null]
>('mount', 'int', ['const char *', 'const char *', 'const char *', 'uint64', 'const char *']);
const setrlimit = declare<[resource: number, limits: Uint8Array]>('setrlimit', 'int', ['int', 'void *']);

/** True if the path exists and is on a bpffs. */
export function isBpffs(path: string): boolean {
  try {
    return statfsSync(path).type === magic;
  } catch {
    return false;
  }
}

/** Mounts a bpffs on an existing directory. Only root can use it. */
export function mountBpffs(directory: string): void {
  checked(mountCall, ['bpf', directory, 'bpf', 0, 'mode=0700'], 'mount', `bpffs on ${directory}`);
}

/**
 * Removes the limit of locked memory for this process. Returns false without CAP_SYS_RESOURCE. Since Linux 5.11 maps do
 * not count as locked memory, so this is not needed.
 */
export function raiseLockedMemoryLimit(): boolean {
  return setrlimit(RLIMIT_MEMLOCK, Buffer.alloc(16, 0xff)) === 0;
}
