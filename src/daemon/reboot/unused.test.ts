import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { silentLog } from '../../base/log.ts';
import { markRecordUsed, readRecord, writeRecord } from '../../tracking/reboot/place.ts';
import { encodeRecord } from '../../tracking/reboot/shutdown-record.ts';
import { describeOutcome } from './outcome.ts';
import { checkUnusedRecord } from './unused.ts';

const [before, now] = ['11111111-1111-4111-8111-111111111111', '22222222-2222-4222-8222-222222222222'];

test('a record that no resume has used is the reason, and a record of this boot is removed', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'unused-record-'));
  try {
    const place = join(directory, 'record');
    const check = () => checkUnusedRecord(place, now, silentLog());
    assert.equal(await check(), undefined);
    await writeRecord(
      place,
      encodeRecord({ bootId: before, at: 1_800_000_000_000, devices: [], leftOut: [] }),
    );
    const said = (found: Awaited<ReturnType<typeof check>>) => describeOutcome(found, 'a', undefined) ?? '';
    assert.match(
      said(await check()),
      /^not continued over the reboot of 2027.*: its record was not used .* did not run in this boot, or was ended/,
    );
    await markRecordUsed(place, (await readRecord(place))!, before);
    assert.match(said(await check()), /'dattod reboot resume' began to use it in a boot and did not come to/);
    assert.ok(existsSync(place), 'it is for resume to use or to remove');

    await writeRecord(place, encodeRecord({ bootId: now, at: 1, devices: [], leftOut: [] }));
    assert.equal(await check(), undefined);
    assert.ok(!existsSync(place), 'the machine was not shut down: writes from here on are not in it');
    writeFileSync(place, 'no record');
    assert.equal(await check(), undefined);
  } finally {
    rmSync(directory, { recursive: true });
  }
});
