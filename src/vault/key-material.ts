/**
 * The keys that people keep: a passphrase, the text of a key file, or a printed recovery code (docs/formats/vault.md,
 * "Keys").
 */
import { createHash } from 'node:crypto';
import { AgentError } from '../base/errors.ts';
import { freshBytes } from '../base/random.ts';
import { keyLength } from './secrets.ts';

export type KeyMaterial =
  | { readonly kind: 'passphrase'; readonly passphrase: string }
  /** The content of the key file. */
  | { readonly kind: 'file'; readonly text: string }
  | { readonly kind: 'recovery'; readonly code: string };

/** Returns the content of a new key file. */
export function newKeyFileText(): string {
  return `${freshBytes(keyLength).toString('hex')}\n`;
}

/** Returns a new recovery code: 14 groups of 4 characters, joined by hyphens. */
export function newRecoveryCode(): string {
  return formatRecoveryCode(freshBytes(keyLength));
}

/**
 * Returns equal bytes for equal passphrases, however the keyboard composes accents. Throws BAD_USAGE if it is empty.
 */
export function passphraseBytes(passphrase: string): Buffer {
  if (passphrase === '') throw new AgentError('BAD_USAGE', 'The passphrase is empty');
  return Buffer.from(passphrase.normalize('NFC'), 'utf8');
}

/** Throws BAD_USAGE. No message contains the text. */
export function keyFileBytes(text: string): Buffer {
  const digits = text.trim();
  if (!/^[0-9a-fA-F]{64}$/.test(digits))
    throw new AgentError(
      'BAD_USAGE',
      `The key file holds ${digits.length} characters, not 64 hexadecimal digits`,
      {
        hint: 'create a key file with dattocli vault key add; another file cannot be used',
      },
    );
  return Buffer.from(digits, 'hex');
}

/** Crockford's base32: no I, L, O and U. */
const alphabet = '0123456789ABCDEFGHJKMNPQRSTVWXYZ';
/** Number of digits for 32 bytes: 256 bits and 4 zero bits. */
const secretDigits = 52;
const checkDigits = 4;

export function formatRecoveryCode(secret: Buffer): string {
  const digits = toBase32(secret, secretDigits) + checkOf(secret);
  return digits.match(/.{4}/g)!.join('-');
}

/** Ignores case, spaces and hyphens. O is read as 0, I and L as 1. Throws BAD_USAGE. */
export function recoveryBytes(code: string): Buffer {
  const digits = code.toUpperCase().replace(/[\s-]/g, '').replace(/O/g, '0').replace(/[IL]/g, '1');
  const hint = 'compare it with the printed code, group by group';
  if (digits.length !== secretDigits + checkDigits)
    throw new AgentError(
      'BAD_USAGE',
      `The recovery code has ${digits.length} characters, not ${secretDigits + checkDigits}`,
      { hint },
    );
  const strange = digits.search(/[^0-9A-HJKMNP-TV-Z]/);
  if (strange !== -1)
    throw new AgentError(
      'BAD_USAGE',
      `Group ${Math.floor(strange / 4) + 1} of the recovery code is mistyped`,
      {
        hint,
      },
    );
  const bits = digits.slice(0, secretDigits);
  const secret = fromBase32(bits);
  // The four spare bits must be zero; otherwise a character is mistyped.
  if (toBase32(secret, secretDigits) !== bits || checkOf(secret) !== digits.slice(secretDigits))
    throw new AgentError(
      'BAD_USAGE',
      'The recovery code is mistyped: its last group does not fit the others',
      {
        hint,
      },
    );
  return secret;
}

/** Returns the first 20 bits of the SHA-256. */
function checkOf(secret: Buffer): string {
  return toBase32(createHash('sha256').update(secret).digest(), checkDigits);
}

/** Returns the first `count` * 5 bits, padded with zeros. */
function toBase32(bytes: Buffer, count: number): string {
  let text = '';
  for (let digit = 0; digit < count; digit++) {
    let value = 0;
    for (let bit = digit * 5; bit < digit * 5 + 5; bit++)
      value = value * 2 + (((bytes[bit >> 3] ?? 0) >> (7 - (bit & 7))) & 1);
    text += alphabet[value]!;
  }
  return text;
}

/** Returns the first 32 bytes. */
function fromBase32(digits: string): Buffer {
  const bytes = Buffer.alloc(keyLength);
  for (let bit = 0; bit < keyLength * 8; bit++) {
    const value = alphabet.indexOf(digits[Math.floor(bit / 5)]!);
    if (((value >> (4 - (bit % 5))) & 1) === 1) bytes[bit >> 3]! |= 0x80 >> (bit & 7);
  }
  return bytes;
}
