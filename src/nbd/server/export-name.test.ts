import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ExportError } from './backend.ts';
import { isImageName, maximumNameBytes, parseExportName } from './export-name.ts';

test('names with and without a size are parsed', () => {
  assert.deepEqual(parseExportName('root.img'), { name: 'root.img', size: undefined });
  assert.deepEqual(parseExportName('root.img@2147483648'), { name: 'root.img', size: 2 ** 31 });
  assert.deepEqual(parseExportName('a@100M'), { name: 'a', size: 100 * 2 ** 20 });
  assert.deepEqual(parseExportName('a@2GiB'), { name: 'a', size: 2 ** 31 });
  assert.equal(parseExportName('Übung_1.datto').name, 'Übung_1.datto');
});

test('a name that could mean another file is refused', () => {
  const bad = [
    ...[
      '',
      '.',
      '..',
      '../x',
      'a/b',
      '/etc/passwd',
      '.hidden',
      'a\0b',
      'a\nb',
      'a b',
      'a\\b',
      '-rf',
      '@',
      '@5',
    ],
    ...[
      'a%2fb',
      'a*',
      '$a',
      '~a',
      'a@1@2',
      '\u202eabc',
      '‥',
      '.unfinished-1',
      'x'.repeat(maximumNameBytes + 1),
    ],
  ];
  for (const name of bad)
    assert.throws(
      () => parseExportName(name),
      (error) => error instanceof ExportError && error.reason === 'invalid',
      JSON.stringify(name),
    );
});

test('an invalid size is refused, not ignored', () => {
  for (const size of ['', '0', '-1', '1x', '0x10', '1e9', '9007199254740992', '999999999P', ' '])
    assert.throws(() => parseExportName(`a@${size}`), ExportError, size);
});

test('no text becomes a path', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 300 }), (text) => {
      if (!isImageName(text)) return;
      assert.doesNotMatch(text, /[/\0]/);
      assert.ok(!text.startsWith('.'));
      assert.ok(Buffer.byteLength(text) <= maximumNameBytes);
    }),
  );
});
