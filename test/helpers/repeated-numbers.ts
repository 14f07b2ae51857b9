/** Random numbers like those of a virtual machine that is reset to one memory snapshot again and again. */
import { randomness } from '../../src/base/random.ts';
import { type EndingTest, atEnd } from './cleanup.ts';

/**
 * From now on the generator, the clocks and the process give the same values at every call, until the test
 * ends.
 */
export function repeatNumbers(t: EndingTest): void {
  const { kernel, moment } = randomness;
  randomness.kernel = (size) => Buffer.alloc(size, 7);
  randomness.moment = () => 'the same';
  atEnd(t, () => void Object.assign(randomness, { kernel, moment }));
}
