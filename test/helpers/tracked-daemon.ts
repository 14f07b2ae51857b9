/**
 * A daemon that tracks by eBPF if the kernel can, and otherwise by a copy of the device (shadow-tracker.ts).
 */
import { trackingSupport } from '../../src/tracking/ebpf/support.ts';
import { daemonFor, scratchFor } from './backup.ts';
import type { EndingTest } from './cleanup.ts';
import type { TestDaemon } from './daemon.ts';

export async function trackedDaemonFor(t: EndingTest): Promise<TestDaemon & { readonly tracker: string }> {
  if ((await trackingSupport()).supported)
    return { ...(await daemonFor(t, { tracking: true })), tracker: 'ebpf' };
  const daemon = await daemonFor(t, {
    entry: 'test/helpers/dattod-shadow.ts',
    environment: { DATTO_SHADOW: scratchFor(t) },
    tracking: true,
  });
  return { ...daemon, tracker: 'test' };
}
