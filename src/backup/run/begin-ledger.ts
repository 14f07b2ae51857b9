import type { DeviceBackup } from '../device-backup.ts';

/** Makes durable what must be so before the first block goes out, and learns what the target holds as zeros. */
export async function beginLedger({ ledger, plan, pool, status }: DeviceBackup): Promise<void> {
  await ledger.begin(plan.kind);
  status.bytes_unsynced = ledger.missing().bytes();
  if (plan.kind === 'full') {
    await pool.discardBase();
    await pool.readZeroMap(ledger.used);
  }
  pool.samples.choose(ledger.used);
}
