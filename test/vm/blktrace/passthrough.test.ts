import './inside.ts';
import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { BlktraceTracker } from '../../../src/tracking/blktrace/blktrace-tracker.ts';
import { describeDevice, sh } from '../guest.ts';
import { writePastBlockLayer } from './passthrough.ts';

test('a SCSI command past the block layer ends the epoch', async () => {
  sh(
    'modprobe virtio_scsi; modprobe sd_mod; for i in $(seq 50); do [ -b /dev/sda ] && break; sleep 0.1; done',
  );
  const tracker = new BlktraceTracker({ runDirectory: mkdtempSync(join(tmpdir(), 'blktrace-')) });
  const device = describeDevice('/dev/sda');
  await tracker.track(device);
  (await tracker.take(device)).commit();
  writePastBlockLayer('/dev/sda', 4096);
  await assert.rejects(tracker.take(device), /passthrough/);
  await tracker.close();
});
