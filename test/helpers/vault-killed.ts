/** What the tests of killed processes and their child have in common: a key, a size, images. */
import type { KeyMaterial } from '../../src/vault/key-material.ts';
import { seeded } from './random.ts';
import type { TestImage } from './vault-writer.ts';

export const killedKey: KeyMaterial = { kind: 'file', text: '00'.repeat(32) };
export const killedSize = 1300 * 4096;

function image(from: number, count: number): TestImage {
  return new Map(
    Array.from({ length: count }, (_, at) => {
      const random = seeded(from + at);
      return [at * 3, Buffer.from(Array.from({ length: 4096 }, () => Math.floor(random() * 256)))];
    }),
  );
}

/** `forgotten` is needed by nobody; the others share some of its chunks, and of one another's. */
export const killedImages = {
  forgotten: image(0, 60),
  first: image(30, 60),
  second: image(50, 60),
  /** More than a pack. */
  next: image(40, 300),
} as const;
