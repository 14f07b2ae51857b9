import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { absoluteTarget, joinPairs, nbdUri, PairList, parseJoinedPair } from './pairs.ts';

test('three words become one at any place', () => {
  const joined = joinPairs([
    'startbackup',
    '-f',
    '--device-pair',
    'A',
    'h',
    '1',
    '--vector',
    'B',
    'h',
    '2',
    '--wait',
  ]);
  assert.deepEqual(joined, [
    'startbackup',
    '-f',
    '--device-pair',
    'A\0h\u00001',
    '--vector',
    'B\0h\u00002',
    '--wait',
  ]);
  assert.deepEqual(joinPairs(['--device-pair=A', 'h', '1', 'x']), ['--device-pair', 'A\0h\u00001', 'x']);
});

test('the error for a missing word names its own option', () => {
  assert.throws(() => joinPairs(['--device-pair', 'A', 'h', '--device-pair', 'B', 'h', '1', 'x']), {
    code: 'BAD_USAGE',
    message: '--device-pair needs DEVICE HOST PORT, but has "A h"',
  });
  assert.throws(() => joinPairs(['--vector']), { code: 'BAD_USAGE' });
});

test('words of other options are not changed', () => {
  fc.assert(
    fc.property(
      fc.array(fc.string().filter((word) => !/^--(device-pair|vector)(=|$)/.test(word))),
      (words) => {
        assert.deepEqual(joinPairs(words), words);
      },
    ),
  );
});

test('host and port become a URI, IPv6 in brackets', () => {
  assert.equal(nbdUri('backup.example', '12345'), 'nbd://backup.example:12345/');
  assert.equal(nbdUri('127.0.0.1', '010'), 'nbd://127.0.0.1:10/');
  assert.equal(nbdUri('::1', '10809'), 'nbd://[::1]:10809/');
  assert.equal(nbdUri('[2001:db8::1]', '1'), 'nbd://[2001:db8::1]:1/');
  assert.equal(nbdUri('fe80::1%eth0', '1'), 'nbd://[fe80::1%25eth0]:1/');
  // Every accepted host becomes a URI with exactly this host.
  for (const host of ['a', 'a-b.c', 'a_b', '10.0.0.1'])
    assert.equal(new URL(nbdUri(host, '1')).hostname, host);
});

test('an invalid host or port is refused', () => {
  for (const host of ['', 'a/b', 'a b', 'a@b', 'h:1', '-h', 'a?', '1:2:3', '[x]'])
    assert.throws(() => nbdUri(host, '1'), { code: 'BAD_USAGE' }, host);
  for (const port of ['', '0', '65536', '-1', '1.5', '0x10', 'ten', '999999'])
    assert.throws(() => nbdUri('h', port), { code: 'BAD_USAGE' }, port);
  assert.throws(() => parseJoinedPair('\0h\u00001'), { code: 'BAD_USAGE' });
});

test('devices and targets are paired in their order, mixed with pairs', () => {
  const list = new PairList();
  list.addDevice('A');
  list.addTarget('nbds://h/x');
  list.addPair('B\0h\u00002');
  list.addDevice('C');
  list.addTarget('/img');
  assert.deepEqual(list.finish(), [
    { device: 'A', target: 'nbds://h/x' },
    { device: 'B', target: 'nbd://h:2/' },
    { device: 'C', target: '/img' },
  ]);
});

test('a device without a target and a target without a device are refused', () => {
  const lonely = new PairList();
  lonely.addDevice('A');
  for (const act of [() => lonely.finish(), () => lonely.addPair('B\0h\u00001')])
    assert.throws(act, { code: 'BAD_USAGE', message: '--device A has no --target after it' });
  assert.throws(() => new PairList().addTarget('nbd://h'), {
    code: 'BAD_USAGE',
    message: '--target nbd://h has no --device before it',
  });
});

test('without any target, devices go to the default vault; if one has a target, all need one', () => {
  const devices = new PairList();
  devices.addDevice('A');
  devices.addDevice('B');
  assert.deepEqual(devices.finishWithDefault(), [
    { device: 'A', target: 'vault:default' },
    { device: 'B', target: 'vault:default' },
  ]);
  assert.throws(() => devices.addTarget('/img'), { message: '--device A has no --target after it' });
  const mixed = new PairList();
  mixed.addDevice('A');
  mixed.addTarget('/img');
  mixed.addDevice('B');
  assert.throws(() => mixed.finishWithDefault(), { message: '--device B has no --target after it' });
  assert.throws(() => mixed.addDevice('C'), { code: 'BAD_USAGE' });
});

test('with a recovery point there may be one device and no target', () => {
  const list = new PairList();
  assert.equal(list.onlyDevice(), undefined);
  list.addDevice('A');
  assert.equal(list.onlyDevice(), 'A');
  list.addDevice('B');
  assert.throws(() => list.onlyDevice(), { code: 'BAD_USAGE' });
});

test('paths are made absolute, URIs are not touched', () => {
  assert.equal(absoluteTarget('nbd+unix:///x?socket=rel'), 'nbd+unix:///x?socket=rel');
  assert.equal(absoluteTarget('/a/b.img'), '/a/b.img');
  assert.equal(absoluteTarget('b.img'), `${process.cwd()}/b.img`);
});
