/**
 * The C library, through koffi. The other files of this folder declare its functions with `declare` and wrap them. They
 * call through `checked`, which turns a negative result into a SystemCallError with errno's name.
 *
 * Functions such as `ioctl` and `syscall` are variadic in C. On x86-64 and arm64 Linux, variadic integers and pointers
 * use the same registers as fixed ones. So fixed prototypes are correct there.
 */
import koffi from 'koffi';

/** A failed system call. `code` is errno's name, as in Node's own errors (`EBUSY`). */
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

/** Linux errno numbers that the tables of koffi and Node do not have (include/uapi/asm-generic/errno.h). */
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

/** A C function from koffi, called on this thread or on a thread of libuv's pool. */
export interface Foreign<A extends readonly unknown[]> {
  (...args: A): number;
  async(...args: [...A, (error: unknown, result: number) => void]): void;
}

/** Declares a C function. The caller must pass the correct name and types, which no compiler checks. */
export function declare<A extends readonly unknown[]>(
  name: string,
  result: string,
  parameters: string[],
): Foreign<A> {
  return libc.func(name, result, parameters);
}

/** Calls the function on this thread. `about` is the path or number for the message. */
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

/** `checked` on a thread of the pool. The memory that `args` points to is kept alive until the call returns. */
export function checkedAsync<A extends readonly unknown[]>(
  call: Foreign<A>,
  args: A,
  syscall: string,
  about?: string,
): Promise<number> {
  return new Promise((resolve, reject) => {
    call.async(...args, (error, result) => {
      // koffi sets errno to the value of the pool's thread just before this callback.
      const errno = koffi.errno();
      if (error instanceof Error) reject(error);
      else if (result < 0) reject(new SystemCallError(syscall, errno, about));
      else resolve(result);
    });
  });
}

/** Returns the address of a view's memory. The memory does not move while the view exists. */
export function addressOf(view: Uint8Array): bigint {
  return koffi.address(view);
}
