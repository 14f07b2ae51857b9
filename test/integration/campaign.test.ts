/** A short share of the campaign of random histories (test/campaign): the same histories in every run. */
import { test } from 'node:test';
import { trackingSupport } from '../../src/tracking/ebpf/support.ts';
import { runCampaign } from '../campaign/history.ts';
import { World } from '../campaign/world.ts';

test('random histories of writes, backups and troubles never end in a backup that lies', async (t) => {
  const { supported } = await trackingSupport();
  if (!supported) t.diagnostic('eBPF cannot track on this kernel: the histories run without a tracker');
  const world = await World.make(t);
  const lines: string[] = [];
  try {
    await runCampaign(world, { seed: 9, histories: 5, steps: 10, log: (line) => lines.push(line) });
  } catch (thrown) {
    t.diagnostic(lines.join('\n'));
    throw thrown;
  }
  t.diagnostic(`${lines.length} steps`);
});
