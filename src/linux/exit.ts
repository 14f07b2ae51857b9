/**
 * Calls _exit(2). Node's own exit waits for the threads of its pool. A thread may wait in the kernel for a filesystem
 * that hangs (base/bounded-call.ts). Then the process would never end.
 */
import { declare } from './libc.ts';

const call = declare<[status: number]>('_exit', 'void', ['int']);

/**
 * Ends the process at once, without the handlers of `exit`. Earlier output to files and pipes is not lost, because Node
 * writes to them synchronously.
 */
export function exitNow(code: number): never {
  call(code);
  throw new Error('_exit returned');
}
