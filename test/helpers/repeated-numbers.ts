/** Random numbers as a virtual machine has them that is put back to one memory snapshot again and again. */
import { randomness } from '../../src/base/random.ts';
import { type EndingTest, atEnd } from './cleanup.ts';

/** From now on the generator, the clocks and the process look the same at every call, until the test ends. */
export function repeatNumbers(t: EndingTest): void {
  const { kernel, moment } = randomness;
  randomness.kernel = (size) => Buffer.alloc(size, 7);
  randomness.moment = () => 'the same';
  atEnd(t, () => void Object.assign(randomness, { kernel, moment }));
}
