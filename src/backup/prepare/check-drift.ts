import type { Chain } from '../../tracking/chain.ts';
import type { CopyPool } from '../copy/pool.ts';
import { driftSample } from '../ledger/known-content.ts';

/**
 * Reads a sample of the content that the target is known to hold, and compares it with the fingerprints. Returns the
 * reason if it differs. If the server is lost in the meantime, it may come back with another image, so the check starts
 * again. `isReadWholly`: the job compares all of the target (BackupPlan.readTarget), so nothing has to be read here.
 */
export async function checkDrift(
  pool: CopyPool,
  chain: Chain,
  { isReadWholly }: { readonly isReadWholly: boolean },
): Promise<string | undefined> {
  if (!pool.facts.abilities.read) return 'the target cannot be read, so its content is not known';
  if (isReadWholly) return undefined;
  if (pool.facts.size < chain.pending.size) return undefined;
  for (;;) {
    const { reconnects } = pool;
    const { mismatches, firstMismatch } = await pool.verify(driftSample(chain));
    if (mismatches > 0)
      return `the target does not hold what the last backup left there (${mismatches} of the places looked at differ, the first at ${firstMismatch})`;
    if (pool.reconnects === reconnects) return undefined;
  }
}
