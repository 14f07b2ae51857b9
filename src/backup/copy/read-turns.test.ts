import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { ReadTurns, starvedMs } from './read-turns.ts';

test('quick reads are idle; a read that had to wait is followed by best-effort reads of half the time waited', () => {
  const turns = new ReadTurns({ amends: 0.5 });
  for (const ms of [1, 20, starvedMs]) {
    assert.equal(turns.ioClass, 'idle');
    assert.equal(turns.took(ms), 0);
  }
  assert.equal(turns.took(starvedMs + 1000), 1000);
  for (let ms = 0; ms < 500; ms += 100) {
    assert.equal(turns.ioClass, 'lowest');
    assert.equal(turns.took(100), 0);
  }
  assert.equal(turns.ioClass, 'idle');
});

test('best-effort reads get their part of the time, however long idle reads have to wait', () => {
  fc.assert(
    fc.property(
      fc.array(fc.double({ min: 0, max: 10_000, noNaN: true }), { minLength: 1 }),
      fc.constantFrom(0.25, 1),
      (waits, amends) => {
        const turns = new ReadTurns({ amends });
        let waited = 0;
        let best = 0;
        for (const ms of waits) {
          waited += turns.took(ms);
          while (turns.ioClass === 'lowest') {
            turns.took(10);
            best += 10;
          }
        }
        assert.ok(best >= waited * amends - 1e-6, `${best} of ${waited}`);
      },
    ),
  );
});

test('a thread reads for its share of the time, whatever it does in between', () => {
  fc.assert(
    fc.property(
      fc.double({ min: 0.2, max: 1, noNaN: true }),
      fc.array(
        fc.tuple(fc.double({ min: 0.1, max: 50, noNaN: true }), fc.double({ min: 0, max: 5, noNaN: true })),
        {
          minLength: 200,
          maxLength: 200,
        },
      ),
      (share, reads) => {
        const turns = new ReadTurns({ amends: 1 });
        let [busy, all] = [0, 0];
        for (const [read, other] of reads) {
          busy += read;
          const pause = turns.pause(share, read, other);
          turns.paused(pause);
          all += read + other + pause;
        }
        // A pause that is too short is added to the next one.
        assert.ok(busy <= share * (all + 2), `${busy} of ${all}, allowed ${share}`);
      },
    ),
  );
});

test('no pause is longer than half a second, and none stays owed for ever', () => {
  const turns = new ReadTurns({ amends: 1 });
  assert.equal(turns.pause(0.05, 60_000, 0), 500);
  turns.paused(500);
  assert.equal(turns.pause(0.05, 0, 0), 0);
  assert.equal(turns.pause(1, 60_000, 0), 0);
});
