/** The common parts of the tests of killed processes and their child: a key, a size, images. */
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

/** No point needs `forgotten`. The other images share some of its chunks, and some of each other's. */
export const killedImages = {
  forgotten: image(0, 60),
  first: image(30, 60),
  second: image(50, 60),
  /** Larger than a pack. */
  next: image(40, 300),
} as const;
