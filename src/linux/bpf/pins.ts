/** Pins: names in a bpffs that keep maps, programs and links alive without a process. */
import { errnoCode } from '../../base/errors.ts';
import { Attributes, bpf, cString } from './syscall.ts';

/** Pins an open map, program or link at a path. EEXIST: the path exists already. */
export function pin(fd: number, path: string): void {
  bpf('objPin', new Attributes(16).pointer(0, cString(path)).u32(8, fd), path);
}

/** Opens the object that is pinned at the path; undefined if there is none. */
export function openPin(path: string): number | undefined {
  try {
    return bpf('objGet', new Attributes(16).pointer(0, cString(path)), path);
  } catch (thrown) {
    if (errnoCode(thrown) === 'ENOENT') return undefined;
    throw thrown;
  }
}
