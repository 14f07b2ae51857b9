import assert from 'node:assert/strict';
import { createDecipheriv, hkdfSync, scryptSync } from 'node:crypto';
import { test } from 'node:test';
import { AgentError, type ErrorDocument } from '../base/errors.ts';
import { type KeyMaterial, newKeyFileText, newRecoveryCode, recoveryBytes } from './key-material.ts';
import { formatSlot, makeSlot, openSlot, parseSlot } from './key-slots.ts';

const master = Buffer.alloc(32, 9);
const vaultId = 'cd'.repeat(16);
const cost = { N: 1024, p: 1 };
const passphrase: KeyMaterial = { kind: 'passphrase', passphrase: 'caf\u00e9' };
const file: KeyMaterial = { kind: 'file', text: newKeyFileText() };
const recovery: KeyMaterial = { kind: 'recovery', code: newRecoveryCode() };

interface SlotDocument {
  kdf: Record<string, unknown>;
  [field: string]: unknown;
}

function refused(code: ErrorDocument['code']): (error: unknown) => true {
  return (error) => {
    assert.ok(error instanceof AgentError, String(error));
    assert.equal(error.code, code, error.message);
    return true;
  };
}

async function slotText(material: KeyMaterial): Promise<{ id: string; document: SlotDocument }> {
  const slot = await makeSlot(master, vaultId, material, { cost, label: 'mine' });
  return { id: slot.id, document: JSON.parse(formatSlot(slot).toString()) as SlotDocument };
}

function parse(id: string, document: unknown): ReturnType<typeof parseSlot> {
  return parseSlot(id, Buffer.from(JSON.stringify(document)), 'the slot');
}

test('a slot of each kind opens with its own material alone', async () => {
  for (const material of [passphrase, file, recovery]) {
    const slot = await makeSlot(master, vaultId, material, { cost, label: 'mine' });
    const again = parseSlot(slot.id, formatSlot(slot), 'the slot');
    assert.deepEqual(again, slot);
    assert.deepEqual(await openSlot(again, vaultId, material), master);
    assert.equal(await openSlot(again, 'ce'.repeat(16), material), undefined);
    const others: KeyMaterial[] = [
      { kind: 'passphrase', passphrase: 'cafe' },
      { kind: 'file', text: newKeyFileText() },
      { kind: 'recovery', code: newRecoveryCode() },
    ];
    for (const other of others) assert.equal(await openSlot(again, vaultId, other), undefined);
  }
  const decomposed: KeyMaterial = { kind: 'passphrase', passphrase: 'cafe\u0301' };
  const slot = await makeSlot(master, vaultId, passphrase, { cost });
  assert.deepEqual(await openSlot(slot, vaultId, decomposed), master);
});

test('a slot is sealed as specified', async () => {
  const derive = {
    passphrase: (salt: Buffer) => scryptSync('caf\u00e9', salt, 32, { N: 1024, r: 8, p: 1 }),
    file: (salt: Buffer) =>
      hkdfSync('sha256', Buffer.from(file.text.trim(), 'hex'), salt, 'dattod vault 1 key file', 32),
    recovery: (salt: Buffer) =>
      hkdfSync('sha256', recoveryBytes(recovery.code), salt, 'dattod vault 1 recovery', 32),
  };
  for (const material of [passphrase, file, recovery]) {
    const { id, document } = await slotText(material);
    const key = new Uint8Array(derive[material.kind](Buffer.from(document.kdf['salt'] as string, 'hex')));
    const sealed = Buffer.from(document['sealed'] as string, 'hex');
    const decipher = createDecipheriv('aes-256-gcm', key, sealed.subarray(0, 12));
    decipher.setAAD(Buffer.from(`dattod vault 1 key ${vaultId} ${id}`));
    decipher.setAuthTag(sealed.subarray(-16));
    assert.deepEqual(Buffer.concat([decipher.update(sealed.subarray(12, -16)), decipher.final()]), master);
    assert.equal(document['kind'], material.kind);
    assert.equal(document['label'], 'mine');
  }
});

test('costly parameters of a forged slot are refused before they are used', async () => {
  const { id, document } = await slotText(passphrase);
  const forgeries: Record<string, unknown>[] = [
    { N: 2 ** 21 },
    { N: 2 ** 40 },
    { N: 512 },
    { N: 1 },
    { N: 0 },
    { N: -1024 },
    { N: 1025 },
    { N: 1024.5 },
    { N: '1024' },
    { N: null },
    { r: 16 },
    { r: 1 },
    { p: 17 },
    { p: 0 },
    { p: 1e9 },
    { name: 'pbkdf2' },
    { name: 'hkdf-sha256' },
    { salt: '' },
    { salt: 'zz'.repeat(32) },
    { salt: 'ab'.repeat(1000) },
    { salt: 7 },
  ];
  for (const forged of forgeries)
    assert.throws(
      () => parse(id, { ...document, kdf: { ...document.kdf, ...forged } }),
      refused('VAULT_DAMAGED'),
      JSON.stringify(forged),
    );
});

test('a slot with a missing field or a field of another type is damaged', async () => {
  const { id, document } = await slotText(file);
  for (const name of Object.keys(document)) {
    assert.throws(() => parse(id, { ...document, [name]: undefined }), refused('VAULT_DAMAGED'), name);
    assert.throws(() => parse(id, { ...document, [name]: [1] }), refused('VAULT_DAMAGED'), name);
  }
  assert.throws(() => parse(id, { ...document, sealed: 'ab'.repeat(59) }), refused('VAULT_DAMAGED'));
  assert.throws(() => parse(id, { ...document, label: 'x'.repeat(201) }), refused('VAULT_DAMAGED'));
  assert.throws(() => parse('ef'.repeat(16), document), refused('VAULT_DAMAGED'));
  assert.throws(() => parse(id, { ...document, format: 2 }), refused('VAULT_TOO_NEW'));
  for (const text of ['', '{', 'null', '[]', '"text"', '7'])
    assert.throws(() => parseSlot(id, Buffer.from(text), 'the slot'), refused('VAULT_DAMAGED'), text);
  assert.equal(parse(id, { ...document, later: 1 }).id, id);
});

test('a slot with any flipped bit opens nothing', async () => {
  const slot = await makeSlot(master, vaultId, file, { label: 'mine' });
  const text = formatSlot(slot);
  for (let at = 0; at < text.length; at++) {
    const flipped = Buffer.from(text);
    flipped[at]! ^= 1;
    let found;
    try {
      const parsed = parseSlot(slot.id, flipped, 'the slot');
      found = await openSlot(parsed, vaultId, file);
      // Changes of the label, the time and white space do not matter.
      if (found !== undefined)
        assert.deepEqual({ ...parsed, label: '', created: '' }, { ...slot, label: '', created: '' });
    } catch (error) {
      refused('VAULT_DAMAGED')(error);
    }
    assert.ok(found === undefined || found.equals(master));
  }
});
