import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as Type from 'typebox';
import { compiledProblemOf, knownFields, problemOf } from './check.ts';
import { problemHint, problemText } from './problem.ts';
import { choice, closed, nullable, shortText, wholeNumber } from './schema.ts';
import { timestamp } from './vault/stored.ts';

const schema = Type.Object({
  kind: choice(['full', 'verify'], ''),
  when: Type.Optional(timestamp('')),
  disks: Type.Array(closed({ size: wholeNumber(1, 16, ''), name: Type.Optional(nullable(shortText(''))) }), {
    maxItems: 2,
  }),
});

test('a problem names the field, its value and the allowed values, compiled or not', () => {
  const compiled = compiledProblemOf(schema);
  const disks = [{ size: 1 }];
  const cases: [unknown, string][] = [
    [3, 'is 3, not an object'],
    [{ disks }, '"kind" is missing'],
    [{ kind: 'half', disks }, '"kind" is "half", not one of full, verify'],
    [{ kind: 'full', disks: 'all' }, '"disks" is "all", not a list of at most 2'],
    [{ kind: 'full', disks: [1] }, '"disks[0]" is 1, not an object'],
    [{ kind: 'full', disks: [{}] }, 'disks[0]: "size" is missing'],
    [{ kind: 'full', disks: [{ size: 17 }] }, 'disks[0]: "size" is 17, not a whole number from 1 to 16'],
    [{ kind: 'full', disks: [{ size: 1.5 }] }, 'disks[0]: "size" is 1.5, not a whole number from 1 to 16'],
    [
      { kind: 'full', disks: [...disks, { size: 2, name: '' }] },
      'disks[1]: "name" is "", not a text of 1 to 4096 characters or null',
    ],
    [{ kind: 'full', disks: [{ size: 1, toString: 1 }] }, 'disks[0]: unknown key "toString"'],
    [
      { kind: 'full', disks, when: '2026-13-01T00:00:00.000Z' },
      '"when" is "2026-13-01T00:00:00.000Z", not a time',
    ],
    [{ kind: 'x'.repeat(100), disks }, `"kind" is "${'x'.repeat(59)}…, not one of full, verify`],
  ];
  for (const [value, text] of cases)
    for (const problem of [problemOf(schema, value), compiled(value)])
      assert.equal(problemText(problem!), text, JSON.stringify(value));
  const unknown = problemOf(schema, { kind: 'full', disks: [{ size: 1, sise: 1 }] });
  assert.equal(problemHint(unknown!), 'known are size, name');
  assert.equal(compiled({ kind: 'full', disks, when: '2026-12-01T00:00:00.000Z', more: 1 }), undefined);
});

test('unknown fields are left out at every depth', () => {
  const inner = Type.Object({ list: Type.Array(nullable(Type.Object({ a: Type.Integer() }))) });
  const value = { list: [{ a: 1, b: 2 }, null], c: 3 };
  assert.deepEqual(knownFields(inner, value), { list: [{ a: 1 }, null] });
});
