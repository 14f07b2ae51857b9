/** The model's devices: few places, few contents, so that chunks are met again, across two levels of map pages. */
import { seeded } from '../random.ts';
import type { TestImage } from '../vault-writer.ts';

export const chunkSize = 4096;
/** Two levels of pages: 1024 chunks and some. */
export const deviceSize = 1300 * chunkSize;

const contents: readonly Buffer[] = Array.from({ length: 200 }, (_, content) => {
  const data = Buffer.alloc(chunkSize);
  const random = seeded(content);
  for (let at = 0; at < chunkSize; at++) data[at] = random() * 256;
  return data;
});
const places = [0, 1, 2, 3, 7, 100, 101, 512, 1022, 1023, 1024, 1025, 1200, 1298, 1299];

/** Up to five chunks written, some of them with zeros. */
export function written(image: TestImage, random: () => number): TestImage {
  const next = new Map(image);
  for (let count = 1 + Math.floor(random() * 5); count > 0; count--) {
    const place = places[Math.floor(random() * places.length)]!;
    if (random() < 0.15) next.delete(place);
    else next.set(place, contents[Math.floor(random() * contents.length)]!);
  }
  return next;
}

/** Returns the first difference, for a message; undefined if there is none. */
export function difference(expected: TestImage, found: TestImage): string | undefined {
  for (const chunk of new Set([...expected.keys(), ...found.keys()])) {
    const [a, b] = [expected.get(chunk), found.get(chunk)];
    if (a === undefined || b === undefined || !a.equals(b))
      return `chunk ${chunk} is ${b?.toString('hex', 0, 8) ?? 'zeros'}, not ${a?.toString('hex', 0, 8) ?? 'zeros'}`;
  }
  return undefined;
}
