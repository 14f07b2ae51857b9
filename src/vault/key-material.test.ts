import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { AgentError } from '../base/errors.ts';
import {
  formatRecoveryCode,
  keyFileBytes,
  newKeyFileText,
  newRecoveryCode,
  passphraseBytes,
  recoveryBytes,
} from './key-material.ts';

const alphabet = '0123456789ABCDEFGHJKMNPQRSTVWXYZ';

function isUsage(error: unknown): boolean {
  return error instanceof AgentError && error.code === 'BAD_USAGE';
}

/** Base32 by long division. */
function base32(bits: bigint, digits: number): string {
  let text = '';
  for (let digit = digits - 1; digit >= 0; digit--)
    text += alphabet[Number((bits >> BigInt(5 * digit)) & 31n)]!;
  return text;
}

const secret = fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes) => Buffer.from(bytes));

test('a recovery code has 14 groups of 4 and is read back however it is typed', () => {
  fc.assert(
    fc.property(secret, (bytes) => {
      const code = formatRecoveryCode(bytes);
      const check = createHash('sha256').update(bytes).digest().readUIntBE(0, 3) >> 4;
      const digits = base32(BigInt(`0x${bytes.toString('hex')}`) << 4n, 52) + base32(BigInt(check), 4);
      assert.match(code, /^(?:[0-9A-HJKMNP-TV-Z]{4}-){13}[0-9A-HJKMNP-TV-Z]{4}$/);
      assert.equal(code.replaceAll('-', ''), digits);
      const typed = [
        code,
        code.toLowerCase(),
        code.replaceAll('-', ' '),
        `${digits}\n`,
        code.replaceAll('0', 'o').replaceAll('1', 'l'),
        code.replaceAll('0', 'O').replaceAll('1', 'I'),
      ];
      for (const text of typed) assert.deepEqual(recoveryBytes(text), bytes);
    }),
  );
});

test('a recovery code with a wrong character or two swapped characters is refused', () => {
  const code = formatRecoveryCode(Buffer.from('0123456789abcdef0123456789abcdef'));
  for (let at = 0; at < code.length; at++) {
    if (code[at] === '-') continue;
    for (const other of `${alphabet}U*`)
      if (other !== code[at])
        assert.throws(() => recoveryBytes(code.slice(0, at) + other + code.slice(at + 1)), isUsage);
    const next = code[at + 1];
    if (next !== undefined && next !== '-' && next !== code[at])
      assert.throws(() => recoveryBytes(code.slice(0, at) + next + code[at]! + code.slice(at + 2)), isUsage);
  }
  assert.throws(() => recoveryBytes(code.slice(0, -1)), isUsage);
  assert.throws(() => recoveryBytes(`${code}0`), isUsage);
  assert.throws(() => recoveryBytes(''), isUsage);
  assert.throws(
    () => recoveryBytes(code.replace(/^(.{10})./, '$1*')),
    (error) => error instanceof AgentError && error.message.startsWith('Group 3 '),
  );
});

test('each new code and key file is different', () => {
  assert.notEqual(newRecoveryCode(), newRecoveryCode());
  const text = newKeyFileText();
  assert.match(text, /^[0-9a-f]{64}\n$/);
  assert.notEqual(text, newKeyFileText());
  assert.equal(keyFileBytes(text).toString('hex'), text.trim());
});

test('a file that is not a key file is refused without showing its content', () => {
  for (const text of [
    '',
    'secret',
    'g'.repeat(64),
    'ab'.repeat(33),
    `${'ab'.repeat(16)}\n${'ab'.repeat(16)}`,
  ])
    assert.throws(
      () => keyFileBytes(text),
      (error) => isUsage(error) && !(text !== '' && (error as Error).message.includes(text)),
    );
});

test('accents may be typed in composed or decomposed form', () => {
  assert.deepEqual(passphraseBytes('e\u0301te\u0301'), Buffer.from('\u00e9t\u00e9'));
  assert.notDeepEqual(passphraseBytes(' a'), passphraseBytes('a'));
  assert.throws(() => passphraseBytes(''), isUsage);
});
