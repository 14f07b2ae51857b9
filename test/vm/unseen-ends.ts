/**
 * Programs that see the begin of writes but never their end. This happens if an interrupt comes in a context
 * in which the kernel runs no tracing programs. For the holes of eBPF tracking.
 */
import assert from 'node:assert/strict';
import { closeSync, openSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Bitmap } from '../../src/base/bitmap.ts';
import { Installation } from '../../src/tracking/ebpf/installation.ts';
import { shapeFor } from '../../src/tracking/ebpf/layout.ts';
import { deviceIdentity, readLiveDevice } from '../../src/tracking/device-identity.ts';
import { TrackedDeviceMap } from '../../src/tracking/ebpf/tracked-device-map.ts';
import type { TrackedDevice } from '../../src/tracking/tracker.ts';

/** Returns the result of a take after `write`, of a device with requests whose ends no program sees. */
export async function dirtyWithoutEnds(
  directory: string,
  device: TrackedDevice,
  write: () => void | Promise<void>,
): Promise<Bitmap> {
  const installation = await Installation.open({ directory });
  try {
    const live = readLiveDevice(device.major, device.minor);
    assert.equal(live.byBio, false);
    const set = await installation.ensureSet('request');
    for (const { tracepoint, copy, link } of set.programs) {
      if (tracepoint !== 'block_rq_complete') continue;
      await rm(join(directory, `request-${tracepoint}-${copy}-link`));
      closeSync(link);
      // The set closes its descriptors at its end, so the number has to stay in use.
      assert.equal(openSync('/dev/null', 'r'), link);
    }
    const shape = shapeFor(device.size, installation.style);
    const map = TrackedDeviceMap.create(
      shape,
      device.path,
      deviceIdentity(device, live, 'boot'),
      'request',
      set.ids,
      new Map(),
    );
    installation.addRange(map.disk, map.fd, undefined, new Set());
    await write();
    const { dirty } = map.take(installation.inFlight('request'));
    map.close();
    return dirty;
  } finally {
    await installation.remove();
  }
}
