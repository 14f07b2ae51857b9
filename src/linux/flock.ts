/** flock(2): advisory locks on whole files, held until the descriptor is closed. */
import { errnoCode } from '../base/errors.ts';
import { checked, declare } from './libc.ts';

const LOCK_EX = 2;
const LOCK_NB = 4;

const flock = declare<[fd: number, operation: number]>('flock', 'int', ['int', 'int']);

/** Takes the exclusive lock without waiting. Returns false if another open file holds it. */
export function tryLock(fd: number): boolean {
  try {
    checked(flock, [fd, LOCK_EX | LOCK_NB], 'flock');
    return true;
  } catch (thrown) {
    const code = errnoCode(thrown);
    if (code === 'EAGAIN' || code === 'EWOULDBLOCK') return false;
    throw thrown;
  }
}
