/**
 * Runs a short part of the campaign of random histories (test/campaign). The histories are the same in every
 * run.
 */
import { test } from 'node:test';
import { trackingSupport } from '../../src/tracking/ebpf/support.ts';
import { runCampaign } from '../campaign/history.ts';
import { World } from '../campaign/world.ts';

test('random histories of writes, backups and troubles never end in a wrong backup', async (t) => {
  const { supported } = await trackingSupport();
  if (!supported) t.diagnostic('eBPF cannot track on this kernel: the histories run without a tracker');
  const world = await World.make(t);
  const lines: string[] = [];
  const failure = await runCampaign(world, {
    ...{ seed: 9, histories: 3, steps: 8 },
    // A slow machine runs fewer histories. A history that fails is shown without shrinking.
    ...{ limitMs: 5_000, shrinkMs: 0 },
    log: (line) => lines.push(line),
  });
  if (failure === undefined) return;
  t.diagnostic(lines.join('\n'));
  const again = `scripts/node test/campaign/main.ts --seed ${failure.seed} --path ${failure.path} --steps 8`;
  throw new Error(`${failure.history}\n${failure.error}\nTo repeat: ${again}`);
});
