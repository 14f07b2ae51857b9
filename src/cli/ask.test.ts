import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TypedLine } from './ask.ts';

const typed = (...pieces: string[]): string | undefined => {
  const line = new TypedLine();
  for (const piece of pieces) {
    const done = line.feed(piece);
    if (done !== undefined) return done;
  }
  return undefined;
};

test('a line ends with Enter, however it comes in pieces', () => {
  assert.equal(typed('pass', 'word\r'), 'password');
  assert.equal(typed('a\nb'), 'a');
  assert.equal(typed('\r'), '');
  assert.equal(typed('not yet'), undefined);
});

test('backspace takes a whole character, Ctrl-U all; other control characters are not part of it', () => {
  assert.equal(typed('pä€\u007f\u007fx\r'), 'px');
  assert.equal(typed('\u007f\bab\u0015c\u0001\u001bd\r'), 'cd');
  assert.equal(typed('😀\u007fx\r'), 'x');
});

test('Ctrl-C cancels; Ctrl-D does where nothing was typed, and else ends the line', () => {
  assert.throws(() => typed('abc\u0003'), { code: 'CANCELLED' });
  assert.throws(() => typed('\u0004'), { code: 'CANCELLED' });
  assert.equal(typed('abc\u0004'), 'abc');
});
