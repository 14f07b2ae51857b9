/**
 * _exit(2). Node's own exit waits for the threads of its pool, and one of them may wait in the kernel for a filesystem
 * that hangs (base/bounded-call.ts): such a process would never end.
 */
import { declare } from './libc.ts';

const call = declare<[status: number]>('_exit', 'void', ['int']);

/**
 * Ends the process at once, without the handlers of `exit`. What was written to files and pipes by then is out, since
 * Node writes them synchronously.
 */
export function exitNow(code: number): never {
  call(code);
  throw new Error('_exit returned');
}
