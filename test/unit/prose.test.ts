/** The rules of our prose find the old phrases, and accept plain English. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { plainText } from '../../scripts/prose/plain-text.ts';
import { longestSentence, problemsOf } from '../../scripts/prose/rules.ts';

const bad: readonly (readonly [text: string, advice: RegExp])[] = [
  ['What counts as pending until it is known that it need not.', /begin with the thing itself/],
  ['It is kept. Whoever stopped our trace may be about to remove it.', /begin with the thing/],
  ['Where there is no mount, it ends.', /"if" or "when"/],
  ['The chain, or undefined where it is new.', /"if" or "when"/],
  ['Deleted by the kernel where nothing holds it.', /"if" or "when"/],
  ['Frozen already, by somebody else.', /name the actor/],
  ['It sends what is written in the meantime.', /name the thing/],
  ['The map is read anew.', /"again"/],
  ['The directory goes again at the end.', /"is removed"/],
  ['It takes that one for dead.', /declares stale/],
  ['The record is in doubt.', /possibly incomplete/],
  ['"x" is no number.', /is not a/],
];

test('the phrases of the old dialect are found at their place', () => {
  for (const [text, advice] of bad) {
    const [problem] = problemsOf(text);
    assert.match(problem?.message ?? '', advice, text);
  }
  const last = problemsOf('Whoever calls it waits. The map is read anew.');
  assert.equal(last.at(-1)?.index, 'Whoever calls it waits. The map is read '.length);
});

test('plain English passes', () => {
  for (const text of [
    'Blocks that were sent but whose content is not yet proven current.',
    'If a job is interrupted, the point is valid. The next job builds on the previous point.',
    'Lists the directory where the images are kept.',
    'What do I do if the disk is full?',
    'Lists active writers and locks. Use this only if its process is gone for good.',
  ])
    assert.deepEqual(problemsOf(text), [], text);
});

test('a sentence may have its number of words but not one more', () => {
  const words = (count: number): string => `${'word '.repeat(count - 1)}word.`;
  assert.deepEqual(problemsOf(words(longestSentence)), []);
  assert.equal(problemsOf(words(longestSentence + 1)).length, 1);
  assert.deepEqual(problemsOf(words(longestSentence) + ' ' + words(longestSentence)), []);
});

test('markup and code become text of the same length that no rule matches', () => {
  for (const raw of [
    '/** Reads `where there is` it. */',
    '/**\n * Reads a block,\n * then [writes](what-is-written.md) it.\n */',
    '// One line\n    // and the next.',
    '**Bold** and _this_: `code ${x}`, ${value.of(it)} bytes.',
  ]) {
    assert.equal(plainText(raw).length, raw.length, raw);
    assert.deepEqual(problemsOf(plainText(raw)), [], raw);
  }
});
