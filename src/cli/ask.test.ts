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

test('a line ends at Enter, also if it arrives in pieces', () => {
  assert.equal(typed('pass', 'word\r'), 'password');
  assert.equal(typed('a\nb'), 'a');
  assert.equal(typed('\r'), '');
  assert.equal(typed('not yet'), undefined);
});

test('backspace removes a whole character and Ctrl-U the line; other control characters are ignored', () => {
  assert.equal(typed('pä€\u007f\u007fx\r'), 'px');
  assert.equal(typed('\u007f\bab\u0015c\u0001\u001bd\r'), 'cd');
  assert.equal(typed('😀\u007fx\r'), 'x');
});

test('Ctrl-C cancels; Ctrl-D cancels an empty line and ends any other', () => {
  assert.throws(() => typed('abc\u0003'), { code: 'CANCELLED' });
  assert.throws(() => typed('\u0004'), { code: 'CANCELLED' });
  assert.equal(typed('abc\u0004'), 'abc');
});
