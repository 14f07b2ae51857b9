/** `keys/KEY.json`: the master key of a vault, sealed (docs/formats/vault.md, "Keys"). */
import * as Type from 'typebox';
import { choice, wholeNumber } from '../schema.ts';
import { digits, id, timestamp } from './stored.ts';

export const longestLabel = 200;

/** Nonce, master key and tag. */
export const sealedKeyLength = 12 + 32 + 16;

const salt = Type.String({
  pattern: '^(?:[0-9a-f]{2}){16,64}$',
  title: '16 to 64 bytes in hexadecimal digits',
});

/** The cost of a slot that is not authenticated: it may not ask for more than 1 GiB of memory. */
const scryptKdf = Type.Object({
  name: choice(['scrypt'], 'for a passphrase'),
  N: Type.Enum(
    Array.from({ length: 11 }, (_, power) => 2 ** (10 + power)),
    { description: 'scrypt needs 1024 * N bytes of memory' },
  ),
  p: wholeNumber(1, 16, 'rounds'),
  r: Type.Literal(8),
  salt,
});

const hkdfKdf = Type.Object({
  name: choice(['hkdf-sha256'], 'for a key file or a recovery code'),
  salt,
});

const common = {
  format: Type.Literal(1),
  id: id('KEY of the name of the object'),
  label: Type.String({ maxLength: longestLabel, description: 'for the user' }),
  created: timestamp('when the slot was made'),
  sealed: digits(2 * sealedKeyLength, 'the sealed master key'),
};

export const passphraseSlot = Type.Object({
  ...common,
  kind: choice(['passphrase'], 'kind of the key'),
  kdf: scryptKdf,
});

export const randomKeySlot = Type.Object({
  ...common,
  kind: choice(['file', 'recovery'], 'kind of the key'),
  kdf: hkdfKdf,
});

export const slotKind = Type.Object({
  kind: choice(['passphrase', 'file', 'recovery'], 'kind of the key'),
});
