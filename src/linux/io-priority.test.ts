import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readlinkSync } from 'node:fs';
import test from 'node:test';
import { type IoClass, setIoClass } from './io-priority.ts';

test('ionice shows the class that a thread sets for itself', () => {
  const thread = readlinkSync('/proc/thread-self').split('/').at(-1)!;
  const seen = (): string => execFileSync('ionice', ['-p', thread], { encoding: 'utf8' }).trim();
  const cases: readonly (readonly [IoClass, RegExp])[] = [
    ['idle', /^idle/],
    ['lowest', /^best-effort: prio 7$/],
    ['none', /^none/],
  ];
  for (const [ioClass, expected] of cases) {
    assert.equal(setIoClass(ioClass), true);
    assert.match(seen(), expected);
  }
});
