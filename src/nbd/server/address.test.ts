import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkedListenAddress, parseListenAddress } from './address.ts';

test('addresses are parsed', () => {
  assert.deepEqual(parseListenAddress('127.0.0.1:0'), { host: '127.0.0.1', port: 0 });
  assert.deepEqual(parseListenAddress('[::1]:5'), { host: '::1', port: 5 });
  assert.deepEqual(parseListenAddress('localhost'), { host: 'localhost', port: 10809 });
  assert.deepEqual(parseListenAddress(':7'), { host: '127.0.0.1', port: 7 });
  for (const bad of ['', 'a:b', '::1:5', '1.2.3.4:70000', 'x:1:2', '[::1]x'])
    assert.throws(() => parseListenAddress(bad), { code: 'BAD_USAGE' }, bad);
});

test('addresses other than loopback need verified peers', async () => {
  for (const host of ['0.0.0.0', '::', '192.0.2.1']) {
    await assert.rejects(checkedListenAddress({ host, port: 1 }, false), { code: 'BAD_USAGE' });
    assert.deepEqual(await checkedListenAddress({ host, port: 1 }, true), { host, port: 1 });
  }
  assert.deepEqual(await checkedListenAddress({ host: '127.0.0.1', port: 1 }, false), {
    host: '127.0.0.1',
    port: 1,
  });
});
