/**
 * The content of a stamped sector (stamper.ts): magic u64, number of the write u64, number of the sector u64,
 * repeated.
 */
export interface Stamp {
  readonly write: number;
  readonly sector: number;
}

const magic = 0x64617474_7374616dn;
const length = 24;

export function writeStamp(sector: Buffer, { write, sector: place }: Stamp): void {
  for (let at = 0; at + length <= sector.length; at += length) {
    sector.writeBigUInt64LE(magic, at);
    sector.writeBigUInt64LE(BigInt(write), at + 8);
    sector.writeBigUInt64LE(BigInt(place), at + 16);
  }
}

/** Returns undefined if the sector is not stamped. */
export function readStamp(sector: Buffer): Stamp | undefined {
  if (sector.readBigUInt64LE(0) !== magic) return undefined;
  return { write: Number(sector.readBigUInt64LE(8)), sector: Number(sector.readBigUInt64LE(16)) };
}
