/**
 * A bitmap in a file, always replaced as a whole: written to a new file, synced, renamed (docs/formats/chain.md). An
 * interruption leaves the old bitmap or the new one.
 */
import { readFile } from 'node:fs/promises';
import { Bitmap } from '../base/bitmap.ts';
import { crc32c } from '../base/crc32c.ts';
import { replaceFile } from '../base/durable.ts';
import { unlessAbsent } from '../base/files.ts';
import { fromNumber, type Generation, toNumber } from './generation.ts';

const magic = 'DATTOMAP';
const version = 1;
const headerSize = 64;
/** The offsets of the two generations, 8 bytes each; 0 means none. */
const generationsAt = [32, 40] as const;

export interface BitmapFile {
  readonly bitmap: Bitmap;
  /** Generations of the tracker's map, at most two (chain.ts). */
  readonly generations: readonly Generation[];
}

/** Writes the file. The bitmap is durable when the promise resolves. `generations`: at most two. Throws FILE_ERROR. */
export async function writeBitmapFile(
  path: string,
  bitmap: Bitmap,
  generations: readonly Generation[] = [],
): Promise<void> {
  const header = Buffer.alloc(headerSize);
  header.write(magic, 0, 'latin1');
  header.writeUInt32LE(version, 8);
  header.writeUInt32LE(crc32c(bitmap.content), 12);
  header.writeBigUInt64LE(BigInt(bitmap.size), 16);
  header.writeBigUInt64LE(BigInt(bitmap.unit), 24);
  for (const [i, at] of generationsAt.entries()) header.writeBigUInt64LE(toNumber(generations[i]), at);
  header.writeUInt32LE(crc32c(header.subarray(0, headerSize - 4)), headerSize - 4);
  await replaceFile(path, header, bitmap.content);
}

/**
 * Reads the file. Returns undefined if there is none, or if it is damaged or of another version: the caller then has no
 * bitmap to rely on. Throws FILE_ERROR if the file cannot be read.
 */
export async function readBitmapFile(path: string): Promise<BitmapFile | undefined> {
  const bytes = await unlessAbsent(path, readFile(path));
  if (bytes === undefined || bytes.length < headerSize) return undefined;
  const header = bytes.subarray(0, headerSize);
  if (header.toString('latin1', 0, 8) !== magic || header.readUInt32LE(8) !== version) return undefined;
  if (crc32c(header.subarray(0, headerSize - 4)) !== header.readUInt32LE(headerSize - 4)) return undefined;
  const words = bytes.subarray(headerSize);
  if (crc32c(words) !== header.readUInt32LE(12)) return undefined;
  const bitmap = new Bitmap(Number(header.readBigUInt64LE(16)), Number(header.readBigUInt64LE(24)));
  if (bitmap.content.length !== words.length) return undefined;
  bitmap.load(words);
  const generations = generationsAt.map((at) => fromNumber(header.readBigUInt64LE(at)));
  return { bitmap, generations: generations.filter((each) => each !== undefined) };
}
