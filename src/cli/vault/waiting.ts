/** Reports on standard error that a store does not answer, while its requests are repeated (for minutes). */
import type { StoreHooks } from '../../vault/store/open-store.ts';
import type { Context } from '../context.ts';

const everyMs = 10_000;
/** Shorter waits are not reported. */
const quietMs = 2_000;

export function waitingHooks(
  { io, json }: Pick<Context, 'io' | 'json'>,
  now: () => number = () => performance.now(),
): StoreHooks {
  if (json) return {};
  let told = Number.NEGATIVE_INFINITY;
  return {
    onWait: ({ error, elapsedMs }) => {
      if (elapsedMs < quietMs || now() - told < everyMs) return;
      told = now();
      io.err(`waiting: ${error.message}\n`);
    },
  };
}
