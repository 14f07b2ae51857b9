/** Reads and formats sizes for people, and rounds to powers of two and other alignments. */
import { AgentError } from './errors.ts';

export const KiB = 1024;
export const MiB = 1024 * KiB;
export const GiB = 1024 * MiB;
/** @internal Only tests have sizes like this so far. */
export const TiB = 1024 * GiB;

const suffixes = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** `1536` becomes `1.50 KiB`; whole bytes have no decimals. */
export function formatBytes(bytes: number): string {
  let power = 0;
  let value = bytes;
  while (value >= 1024 && power < suffixes.length - 1) {
    value /= 1024;
    power++;
  }
  return power === 0 ? `${bytes} B` : `${value.toFixed(2)} ${suffixes[power] ?? ''}`;
}

/**
 * Reads `4096`, `64K`, `64KiB`, `1.5GB` (all powers of 1024, as in dd and lvm). Throws BAD_USAGE for anything else;
 * the message names `what`.
 */
export function parseBytes(text: string, what = 'size'): number {
  const match = /^(\d+(?:\.\d+)?)\s*([KMGTP]?)(?:i?B)?$/i.exec(text.trim());
  const power = ['', 'K', 'M', 'G', 'T', 'P'].indexOf((match?.[2] ?? '').toUpperCase());
  const bytes = match ? Math.round(Number(match[1]) * 1024 ** power) : Number.NaN;
  if (!Number.isSafeInteger(bytes))
    throw new AgentError('BAD_USAGE', `${what} "${text}" is not a number of bytes`, {
      hint: 'write it like 4096, 64K, 100M or 2G',
    });
  return bytes;
}

export function alignDown(value: number, alignment: number): number {
  return value - (value % alignment);
}

export function alignUp(value: number, alignment: number): number {
  return alignDown(value + alignment - 1, alignment);
}

/** True if every byte is zero. Compares with a block of zeros, which runs at the speed of memory. */
export function isZero(data: Uint8Array): boolean {
  const view = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  for (let at = 0; at < view.length; at += zeros.length) {
    const length = Math.min(zeros.length, view.length - at);
    if (view.compare(zeros, 0, length, at, at + length) !== 0) return false;
  }
  return true;
}

const zeros = Buffer.alloc(64 * KiB);
