/**
 * The generation of a tracker's map: it becomes another one each time the map forgets what was taken. Each chain records
 * the generation that it is complete for, so that a chain that was not given what the map has forgotten is noticed:
 * an older copy of the state directory, a record that could not be read, another daemon (docs/formats/chain.md).
 */
import { freshBytes } from '../base/random.ts';

/** 16 hexadecimal digits, not all zero. */
export type Generation = string;

/** Never used before. */
export function newGeneration(): Generation {
  return fromNumber(freshBytes(8).readBigUInt64LE()) ?? newGeneration();
}

/** As a number of 64 bits; 0 stands for none. */
export function toNumber(generation: Generation | undefined): bigint {
  return BigInt(`0x${generation ?? '0'}`);
}

/** Undefined for 0. */
export function fromNumber(value: bigint): Generation | undefined {
  return value === 0n ? undefined : value.toString(16).padStart(16, '0');
}
