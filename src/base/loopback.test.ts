import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isLoopback } from './loopback.ts';

test('loopback is all of 127/8 and ::1', () => {
  for (const address of ['127.0.0.1', '127.255.255.254', '::1', '::ffff:127.0.0.1'])
    assert.ok(isLoopback(address), address);
  for (const address of ['0.0.0.0', '::', '10.0.0.1', '128.0.0.1', 'fe80::1', '::ffff:10.0.0.1'])
    assert.ok(!isLoopback(address), address);
  for (const name of ['', 'localhost', '127.0.0.1.example.com', '[::1]']) assert.ok(!isLoopback(name), name);
});
