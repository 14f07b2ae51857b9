import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { AgentError } from '../../base/errors.ts';
import { formatVaultLocation, isOnThisMachine, isVaultLocation, parseVaultLocation } from './location.ts';

const good: readonly [text: string, formatted: string, location: unknown][] = [
  ['vault:/backup/v', 'vault:/backup/v', { kind: 'directory', path: '/backup/v' }],
  ['vault:/backup//./x/../v/', 'vault:/backup/v', { kind: 'directory', path: '/backup/v' }],
  ['vault:///srv/v', 'vault:/srv/v', { kind: 'directory', path: '/srv/v' }],
  ['vault:/a b?c', 'vault:/a b?c', { kind: 'directory', path: '/a b?c' }],
  ['vault:main-2_x', 'vault:main-2_x', { kind: 'named', name: 'main-2_x' }],
  [
    'vault+s3://s3.example.com/bkt/a/B.c/',
    'vault+s3://s3.example.com/bkt/a/B.c',
    { kind: 's3', endpoint: 'https://s3.example.com', bucket: 'bkt', prefix: 'a/B.c' },
  ],
  [
    'vault+s3+https://s3.example.com:443/bkt',
    'vault+s3://s3.example.com/bkt',
    { kind: 's3', endpoint: 'https://s3.example.com', bucket: 'bkt', prefix: '' },
  ],
  [
    'vault+s3+http://[::1]:9000/bkt/p',
    'vault+s3+http://[::1]:9000/bkt/p',
    { kind: 's3', endpoint: 'http://[::1]:9000', bucket: 'bkt', prefix: 'p' },
  ],
];

test('locations are parsed and formatted back', () => {
  for (const [text, formatted, location] of good) {
    assert.deepEqual(parseVaultLocation(text), location, text);
    assert.equal(formatVaultLocation(parseVaultLocation(text)), formatted);
    assert.deepEqual(parseVaultLocation(formatted), location, formatted);
    assert.ok(isVaultLocation(text));
  }
});

test('an invalid location is refused with a reason', () => {
  const wrong: readonly [string, RegExp][] = [
    ['vault:', /must be a path/],
    ['vault:relative/path', /must be a path/],
    ['vault:Name', /must be a path/],
    ['vault:/', /directory of its own/],
    ['vault:/x/..', /directory of its own/],
    ['vault:/a\0b', /zero byte/],
    ['vault+s3:/host/bucket', /must be a path/],
    ['vault+ftp://host/bucket', /must be a path/],
    ['vault+s3://host', /not a bucket name/],
    ['vault+s3://host/', /not a bucket name/],
    ['vault+s3://host/b', /not a bucket name/],
    ['vault+s3://host/Bucket', /not a bucket name/],
    ['vault+s3:///bucket', /must be HOST/],
    ['vault+s3://host:99999/bucket', /must be HOST/],
    ['vault+s3://ho st/bucket', /must be HOST/],
    ['vault+s3://host/bucket/a//b', /the part ""/],
    ['vault+s3://host/bucket/../b', /the part "\.\."/],
    ['vault+s3://host/bucket/a?x=1', /\? or #/],
    ['vault+s3://key:secret@host/bucket', /contains a user or a password/],
  ];
  for (const [text, why] of wrong)
    assert.throws(() => parseVaultLocation(text), { code: 'BAD_TARGET', message: why }, text);
});

test('a message never contains a secret', () => {
  assert.throws(
    () => parseVaultLocation('vault+s3://key:hunter2@host/bucket'),
    (error: AgentError) => !`${error.message} ${error.hint ?? ''}`.includes('hunter2'),
  );
});

test('random text is BAD_TARGET and nothing else', () => {
  fc.assert(
    fc.property(
      fc.string(),
      fc.constantFrom('vault:', 'vault:/', 'vault+s3://', 'vault+s3://h/'),
      (text, start) => {
        try {
          const location = parseVaultLocation(start + text);
          assert.deepEqual(parseVaultLocation(formatVaultLocation(location)), location);
        } catch (error) {
          if (!(error instanceof AgentError)) throw error;
          assert.equal(error.code, 'BAD_TARGET');
        }
      },
    ),
  );
});

test('endpoints on this machine are recognised', () => {
  for (const yes of ['http://127.0.0.1:80', 'http://127.9.9.9', 'http://[::1]:1', 'https://localhost'])
    assert.ok(isOnThisMachine(yes), yes);
  for (const no of [
    'http://128.0.0.1',
    'http://127.0.0.1.example.com',
    'http://[::2]',
    'http://localhost.example',
  ])
    assert.ok(!isOnThisMachine(no), no);
});
