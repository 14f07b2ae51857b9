/** Finds the end of a zstd frame and the length of its content: RFC 8878, section 3.1.1. Pure. */

export interface ZstdFrame {
  /** Bytes of the frame. */
  readonly length: number;
  /** Bytes of its content, if the frame has a content size. */
  readonly contentLength: number | undefined;
}

const magic = 0xfd2fb528;
const dictionaryIdLengths = [0, 1, 2, 4];

/** Returns undefined if no frame begins here, or if it does not end within the bytes. */
export function parseZstdFrame(bytes: Buffer): ZstdFrame | undefined {
  if (bytes.length < 6 || bytes.readUInt32LE(0) !== magic) return undefined;
  const descriptor = bytes[4]!;
  const isSingleSegment = (descriptor & 0x20) !== 0;
  const hasChecksum = (descriptor & 0x04) !== 0;
  let at = 5 + (isSingleSegment ? 0 : 1) + dictionaryIdLengths[descriptor & 3]!;
  const sizeLength = [isSingleSegment ? 1 : 0, 2, 4, 8][descriptor >> 6]!;
  if (at + sizeLength > bytes.length) return undefined;
  const contentLength = readContentLength(bytes, at, sizeLength);
  at += sizeLength;
  for (let isLast = false; !isLast;) {
    if (at + 3 > bytes.length) return undefined;
    const header = bytes.readUIntLE(at, 3);
    isLast = (header & 1) !== 0;
    const type = (header >> 1) & 3;
    if (type === 3) return undefined;
    at += 3 + (type === 1 ? 1 : header >> 3);
  }
  if (hasChecksum) at += 4;
  return at > bytes.length ? undefined : { length: at, contentLength };
}

function readContentLength(bytes: Buffer, at: number, length: number): number | undefined {
  if (length === 0) return undefined;
  if (length === 8) return Number(bytes.readBigUInt64LE(at));
  return bytes.readUIntLE(at, length) + (length === 2 ? 256 : 0);
}
