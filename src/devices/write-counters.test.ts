import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { openWriteCounters } from './write-counters.ts';

test('writes are counted on the whole disks below: for a partition, and for a volume on two disks', (t) => {
  const sys = mkdtempSync(join(tmpdir(), 'write-counters-'));
  t.after(() => rmSync(sys, { recursive: true }));
  const add = (number: string, path: string, attributes: Record<string, string>): string => {
    const place = join(sys, 'block', path);
    mkdirSync(place, { recursive: true });
    for (const [name, text] of Object.entries(attributes)) writeFileSync(join(place, name), `${text}\n`);
    mkdirSync(join(sys, 'dev/block'), { recursive: true });
    symlinkSync(place, join(sys, 'dev/block', number));
    return place;
  };
  const stat = (writes: number, ms: number): string => `7 7 7 7 ${writes} 7 7 ${ms} 7 7 7`;
  const first = add('8:0', 'fda', { stat: stat(10, 25) });
  const part = add('8:1', 'fda/fda1', { stat: stat(3, 4), partition: '1' });
  const second = add('8:16', 'fdb', { stat: stat(100, 200) });
  const lower = add('253:0', 'dm-0', { stat: stat(1, 1) });
  const upper = add('253:1', 'dm-1', { stat: stat(2, 2) });
  mkdirSync(join(lower, 'slaves'));
  symlinkSync(part, join(lower, 'slaves/fda1'));
  symlinkSync(second, join(lower, 'slaves/fdb'));
  mkdirSync(join(upper, 'slaves'));
  symlinkSync(lower, join(upper, 'slaves/dm-0'));

  const of = (kind: 'disk' | 'partition' | 'file', major: number, minor: number) =>
    openWriteCounters({ kind, major, minor }, sys);
  assert.deepEqual(of('partition', 8, 1)(), { writes: 10, ms: 25 });
  const volume = of('disk', 253, 1);
  assert.deepEqual(volume(), { writes: 110, ms: 225 });
  rmSync(first, { recursive: true });
  assert.equal(volume(), undefined);
  assert.equal(of('file', 0, 0)(), undefined);
  assert.equal(of('disk', 9, 9)(), undefined);
});
