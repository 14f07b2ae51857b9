/**
 * The C library, through koffi: the one file that declares foreign functions' shapes. The others of this room
 * wrap them. Every call ends in `checked`, which turns a negative result into a SystemCallError with errno's
 * name.
 *
 * `ioctl`, `syscall` and their like are variadic in C; on x86-64 and on arm64 Linux variadic integers and
 * pointers travel in the same registers as fixed ones, so fixed prototypes are right there.
 */
import koffi from 'koffi';

/** A failed system call. `code` is errno's name as Node's own errors have it (`EBUSY`). */
export class SystemCallError extends Error {
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;

  constructor(syscall: string, errno: number, about = '') {
    const code = errnoName(errno);
    super(`${code}: ${syscall}${about === '' ? '' : ` ${about}`}`);
    this.name = 'SystemCallError';
    this.code = code;
    this.errno = errno;
    this.syscall = syscall;
  }
}

/** Linux errno numbers that no table of koffi's or Node's knows (include/uapi/asm-generic/errno.h). */
const uncommon: ReadonlyMap<number, string> = new Map([
  [61, 'ENODATA'],
  [74, 'EBADMSG'],
  [84, 'EILSEQ'],
  [95, 'EOPNOTSUPP'],
  [117, 'EUCLEAN'],
  [121, 'EREMOTEIO'],
  [123, 'ENOMEDIUM'],
  [124, 'EMEDIUMTYPE'],
]);

/** `16` becomes `EBUSY`; an unknown number becomes `errno 999`. */
export function errnoName(errno: number): string {
  const known = uncommon.get(errno);
  if (known !== undefined) return known;
  for (const [name, value] of Object.entries(koffi.os.errno)) if (value === errno) return name;
  return `errno ${errno}`;
}

export const libc = koffi.load('libc.so.6');

/** What koffi makes of a C function: callable here, or on a thread of libuv's pool. */
export interface Foreign<A extends readonly unknown[]> {
  (...args: A): number;
  async(...args: [...A, (error: unknown, result: number) => void]): void;
}

/** Declares a C function. `name` and the types are ours, so that the cast holds by construction. */
export function declare<A extends readonly unknown[]>(
  name: string,
  result: string,
  parameters: string[],
): Foreign<A> {
  return libc.func(name, result, parameters);
}

/** Calls on this thread; `about` is for the message: the path or number that it concerned. */
export function checked<A extends readonly unknown[]>(
  call: Foreign<A>,
  args: A,
  syscall: string,
  about?: string,
): number {
  const result = call(...args);
  if (result < 0) throw new SystemCallError(syscall, koffi.errno(), about);
  return result;
}

/** The same on a thread of the pool. Whatever `args` points to is kept alive until the call returns. */
export function checkedAsync<A extends readonly unknown[]>(
  call: Foreign<A>,
  args: A,
  syscall: string,
  about?: string,
): Promise<number> {
  return new Promise((resolve, reject) => {
    call.async(...args, (error, result) => {
      // koffi hands over the pool thread's errno just before this callback.
      const errno = koffi.errno();
      if (error instanceof Error) reject(error);
      else if (result < 0) reject(new SystemCallError(syscall, errno, about));
      else resolve(result);
    });
  });
}

/** Address of the memory behind a view; it does not move while the view lives. */
export function addressOf(view: Uint8Array): bigint {
  return koffi.address(view);
}
