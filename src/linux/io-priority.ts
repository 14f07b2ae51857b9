/**
 * Sets the I/O class of the calling thread: ioprio_set(2), constants of include/uapi/linux/ioprio.h. Only reads and
 * direct writes have a class, and not every I/O scheduler uses it (docs/impact.md).
 */
import { declare } from './libc.ts';

/** `lowest`: best effort at its lowest level. `none`: the default, which depends on the thread's nice value. */
export type IoClass = 'none' | 'lowest' | 'idle';

const classShift = 13;
const values: Readonly<Record<IoClass, number>> = {
  none: 0,
  lowest: (2 << classShift) | 7,
  idle: 3 << classShift,
};

/** __NR_ioprio_set. */
const number = process.arch === 'arm64' ? 30 : 251;

/** IOPRIO_WHO_PROCESS. With `who` 0 it applies to the calling thread only. */
const whoProcess = 1;

const syscall = declare<[number: number, which: number, who: number, value: number]>('syscall', 'long', [
  'long',
  'int64',
  'int64',
  'int64',
]);

/** False if the kernel refuses it (a security module, a container's filter). The thread then keeps its class. */
export function setIoClass(ioClass: IoClass): boolean {
  return syscall(number, whoProcess, 0, values[ioClass]) >= 0;
}
