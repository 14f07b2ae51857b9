/** `vault.json`: version, ID and parameters of a vault (docs/formats/vault.md). */
import * as Type from 'typebox';
import { KiB, MiB } from '../../base/bytes.ts';
import { choice, wholeNumber } from '../schema.ts';
import { digits, id, timestamp } from './stored.ts';

/** The powers of two from 4 KiB to 1 MiB. */
export const chunkSizes = Array.from({ length: 9 }, (_, power) => 4 * KiB * 2 ** power);

const format = choice(['dattod vault'], 'tells a vault from other directories');

/** Checked before the version: another program's file is damaged, not too new. */
export const isVault = Type.Object({ format });

export const parameters = Type.Object({
  format,
  version: Type.Literal(1),
  id: id('ID of the vault'),
  created: timestamp('when the vault was created'),
  chunk_size: Type.Enum(chunkSizes, { description: 'bytes' }),
  pack_size: wholeNumber(MiB, 64 * MiB, 'bytes'),
  mac: digits(64, 'authenticates the parameters'),
});
