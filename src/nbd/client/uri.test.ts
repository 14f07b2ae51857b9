import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type NbdAddress, formatNbdUri, parseNbdUri } from './uri.ts';

const tcp = (host: string, port: number, exportName: string): NbdAddress => ({
  transport: { kind: 'tcp', host, port },
  exportName,
});

test("the specification's examples", () => {
  for (const [uri, name] of [
    ['nbd://example.com/disk', 'disk'],
    ['nbd://example.com/', ''],
    ['nbd://example.com', ''],
    ['nbd://example.com//disk', '/disk'],
    ['nbd://example.com/hello%20world', 'hello world'],
    ['nbd://example.com/a/../b', 'a/../b'],
  ] as const)
    assert.deepEqual(parseNbdUri(uri), tcp('example.com', 10809, name), uri);
  assert.deepEqual(parseNbdUri('nbd+unix:///disk?socket=sock'), {
    transport: { kind: 'unix', path: 'sock' },
    exportName: 'disk',
  });
  assert.deepEqual(parseNbdUri('nbd+unix:///?socket=%00/abstract').transport, {
    kind: 'unix',
    path: '\0/abstract',
  });
});

test('hosts and ports are parsed', () => {
  assert.deepEqual(parseNbdUri('nbd://[::1]:12345/x'), tcp('::1', 12345, 'x'));
  assert.deepEqual(parseNbdUri('NBD://10.0.0.1:1'), tcp('10.0.0.1', 1, ''));
  assert.deepEqual(parseNbdUri('nbd:///x'), tcp('localhost', 10809, 'x'));
});

test('TLS parameters are parsed', () => {
  assert.deepEqual(parseNbdUri('nbds://example.com').tls, { type: 'x509', verifyPeer: true });
  assert.deepEqual(
    parseNbdUri('nbds+unix://alice@/?socket=/s&tls-certificates=/etc/pki&tls-hostname=h&tls-verify-peer=0')
      .tls,
    { type: 'x509', certificates: '/etc/pki', username: 'alice', hostname: 'h', verifyPeer: false },
  );
  assert.deepEqual(parseNbdUri('nbds://bob@h/?tls-psk-file=/keys.psk').tls, {
    type: 'psk',
    pskFile: '/keys.psk',
    username: 'bob',
    verifyPeer: true,
  });
});

test('the error for an invalid URI names the mistake', () => {
  for (const [uri, why] of [
    ['http://example.com', /scheme "http"/],
    ['example.com', /not a URI/],
    ['nbd://h:0', /port "0"/],
    ['nbd://h:65536', /port "65536"/],
    ['nbd://h:12x', /port "12x"/],
    ['nbd://h/%zz', /export name/],
    ['nbd://h/%ff', /export name/],
    ['nbd://h/a%00b', /NUL/],
    ['nbd://h/a#b', /fragment/],
    ['nbd://[12]/', /IPv6/],
    ['nbd://h/?socket=/s', /socket=/],
    ['nbd+unix:///x', /socket=PATH is missing/],
    ['nbd+unix://h/x?socket=/s', /no host/],
    [`nbd+unix:///x?socket=/${'s'.repeat(107)}`, /108 bytes/],
    ['nbd://h/?tls-psk-file=/k', /needs TLS/],
    ['nbds://h/?tls-type=anon', /anon/],
    ['nbds://h/?tls-type=psk', /tls-psk-file/],
    ['nbds://h/?tls-verify-peer=2', /neither 0 nor 1/],
    ['nbd://h/?colour=red', /"colour"/],
    ['nbd://h/?x-colour=red&x-colour=blue', /twice/],
  ] as const)
    assert.throws(() => parseNbdUri(uri), { code: 'BAD_TARGET', message: why }, uri);
  assert.equal(parseNbdUri('nbd://h/?x-colour=red').exportName, '');
});

test('a password is refused and not repeated', () => {
  assert.throws(
    () => parseNbdUri('nbds://alice:hunter2@h/'),
    (error: Error) => !error.message.includes('hunter2') && /password/.test(error.message),
  );
});

test('an address is the same after a round trip through its URI', () => {
  const text = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 12 }).filter((t) => !t.includes('\0'));
  const optional = fc.option(text, { nil: undefined });
  const tls = fc
    .record({
      certificates: optional,
      pskFile: optional,
      username: optional,
      hostname: optional,
      verifyPeer: fc.boolean(),
    })
    .map((t) => ({
      type: t.pskFile === undefined ? ('x509' as const) : ('psk' as const),
      ...(Object.fromEntries(Object.entries(t).filter(([, v]) => v !== undefined)) as {
        verifyPeer: boolean;
      }),
    }))
    .filter((t) => !('username' in t && String(t.username).includes(':')));
  const transport = fc.oneof(
    fc.record(
      {
        kind: fc.constant('tcp' as const),
        host: fc.oneof(fc.domain(), fc.ipV4(), fc.ipV6()),
        port: fc.integer({ min: 1, max: 65535 }),
      },
      { noNullPrototype: true },
    ),
    fc.record({ kind: fc.constant('unix' as const), path: text }, { noNullPrototype: true }),
  );
  fc.assert(
    fc.property(
      transport,
      fc.oneof(fc.constant(''), text),
      fc.option(tls, { nil: undefined }),
      (t, name, s) => {
        const address: NbdAddress = {
          transport: t,
          exportName: name,
          ...(s === undefined ? {} : { tls: s }),
        };
        assert.deepEqual(parseNbdUri(formatNbdUri(address)), address);
      },
    ),
  );
});

test('garbage always throws BAD_TARGET', () => {
  fc.assert(
    fc.property(fc.constantFrom('nbd://', 'nbds://', 'nbd+unix://', ''), fc.string(), (start, rest) => {
      try {
        parseNbdUri(start + rest);
      } catch (error) {
        assert.equal((error as { code?: string }).code, 'BAD_TARGET');
      }
    }),
  );
});
