import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { EventParser } from './events.ts';

test('events come out whole for every split of the text', () => {
  const data = ['{"a":1}', '{"b":"two"}', '{"c":[3]}'];
  const text = data.map((each, i) => `${i === 1 ? ': \n\n' : ''}event: status\ndata: ${each}\n\n`).join('');
  fc.assert(
    fc.property(fc.array(fc.nat(text.length), { maxLength: 6 }), (places) => {
      const cuts = [0, ...places.toSorted((a, b) => a - b), text.length];
      const parser = new EventParser();
      const got = cuts.slice(1).flatMap((end, i) => parser.feed(text.slice(cuts[i], end)));
      assert.deepEqual(got, data);
    }),
  );
});

test('an incomplete event is not reported yet', () => {
  const parser = new EventParser();
  assert.deepEqual(parser.feed('data: x\n'), []);
  assert.deepEqual(parser.feed('\n'), ['x']);
});
