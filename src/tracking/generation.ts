/**
 * The generation of a tracker's map. It changes each time the map forgets marks that were taken. Each chain records the
 * generation that it is complete for. So a chain that was not given the forgotten marks is noticed. Causes are an older
 * copy of the state directory, a record that could not be read, or another daemon (docs/formats/chain.md).
 */
import { freshBytes } from '../base/random.ts';

/** 16 hexadecimal digits, not all zero. */
export type Generation = string;

/** Returns a generation that was never used before. */
export function newGeneration(): Generation {
  return fromNumber(freshBytes(8).readBigUInt64LE()) ?? newGeneration();
}

/** Converts to a number of 64 bits; 0 stands for none. */
export function toNumber(generation: Generation | undefined): bigint {
  return BigInt(`0x${generation ?? '0'}`);
}

/** Converts from a number of 64 bits; undefined for 0. */
export function fromNumber(value: bigint): Generation | undefined {
  return value === 0n ? undefined : value.toString(16).padStart(16, '0');
}
