import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crc16 } from './crc16.ts';

test('CRC-16/ARC and CRC-16/MODBUS of the check string', () => {
  const check = Buffer.from('123456789');
  assert.equal(crc16(check, 0), 0xbb3d);
  assert.equal(crc16(check, 0xffff), 0x4b37);
  assert.equal(crc16(check.subarray(4), crc16(check.subarray(0, 4), 0xffff)), 0x4b37);
});
