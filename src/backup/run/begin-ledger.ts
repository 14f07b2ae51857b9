import type { DeviceBackup } from '../device-backup.ts';

/**
 * Makes durable all that must be durable before the first block is sent, and learns which blocks of the target are
 * zeros.
 */
export async function beginLedger({ ledger, plan, pool, status }: DeviceBackup): Promise<void> {
  await ledger.begin(plan.kind);
  status.bytes_unsynced = ledger.missing().bytes();
  if (plan.kind === 'full') {
    await pool.discardBase();
    await pool.readZeroMap(ledger.used);
  }
  pool.samples.choose(ledger.used);
}
