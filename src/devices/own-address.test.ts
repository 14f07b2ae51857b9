import assert from 'node:assert/strict';
import test from 'node:test';
import { type Network, isThisMachine } from './own-address.ts';

const network: Network = {
  resolve: (host) => {
    const found = names[host];
    return found === undefined ? Promise.reject(new Error('ENOTFOUND')) : Promise.resolve(found);
  },
  own: () => ['127.0.0.1', '192.0.2.7', '2001:db8::7', 'fe80::7', '::1'],
};

const names: Record<string, readonly string[]> = {
  localhost: ['::1', '127.0.0.1'],
  'me.example': ['198.51.100.1', '192.0.2.7'],
  'me6.example': ['2001:db8::7'],
  '127.1': ['127.0.0.1'],
  '2130706433': ['127.0.0.1'],
  'other.example': ['198.51.100.1', '2001:db8::8'],
};

for (const host of [
  ...['localhost', 'me.example', 'me6.example', '127.1', '2130706433'],
  ...['127.0.0.1', '127.0.0.5', '127.255.255.254', '0.0.0.0', '::1', '::', '0:0:0:0:0:0:0:1'],
  ...['192.0.2.7', '2001:db8::7', '2001:DB8:0::7', 'fe80::7', 'fe80::7%eth0'],
  ...['::ffff:127.0.0.1', '::ffff:7f00:1', '::ffff:192.0.2.7', '::ffff:c000:207'],
  'unknown.example',
])
  test(`${host} counts as this machine`, async () => {
    assert.equal(await isThisMachine(host, network), true);
  });

for (const host of ['other.example', '192.0.2.8', '128.0.0.1', '2001:db8::8', '::ffff:192.0.2.8'])
  test(`${host} is another machine`, async () => {
    assert.equal(await isThisMachine(host, network), false);
  });

test("the machine's resolver resolves its own names", async () => {
  assert.equal(await isThisMachine('localhost'), true);
  assert.equal(await isThisMachine('127.1'), true);
});
