import type { ChainBase } from '../../tracking/chain.ts';
import type { DeviceBackup } from '../device-backup.ts';
import type { JobContext } from '../job-context.ts';
import { describeDevice } from '../vault/point-document.ts';

/**
 * Makes the maps of the devices that are backed up into vaults, and in each vault the one recovery point that names
 * them. `instant` is the instant of the images. Returns the base that the chain of each of these devices records.
 */
export async function publishPoints(
  devices: readonly DeviceBackup[],
  { uuid, kind, reporter }: JobContext,
  instant: Date,
): Promise<Map<DeviceBackup, ChainBase>> {
  const bases = new Map<DeviceBackup, ChainBase>();
  for (const [vault, members] of Map.groupBy(devices, (device) => device.vault)) {
    if (vault === undefined) continue;
    const { warnings } = reporter;
    const described = [];
    for (const { pool, ledger, pair, status, instant: taken } of members) {
      const map = await pool.buildMap(ledger.touched(), ledger.used);
      described.push(await describeDevice(pair.device, { map, status, taken: taken.kind, warnings }));
    }
    const facts = { job: uuid, kind, finished: instant, warnings, devices: described };
    for (const [i, base] of (await vault.publish(facts)).entries()) {
      const member = members[i]!;
      bases.set(member, base);
      // The point is there from now on, also if the job fails later.
      member.status.point = base.point;
    }
  }
  return bases;
}
