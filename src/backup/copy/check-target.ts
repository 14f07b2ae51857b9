/** Checks of a target before anything is sent to it. */
import { AgentError } from '../../base/errors.ts';
import { nbdUserHint } from '../../nbd/client/refusals.ts';
import type { TargetFacts } from './messages.ts';

/** Checks that the target can take the `size` bytes of `source`. Throws TARGET_TOO_SMALL, TARGET_READ_ONLY. */
export function checkTarget(
  facts: TargetFacts,
  { target, source, size }: { readonly target: string; readonly source: string; readonly size: number },
): void {
  if (facts.size < size)
    throw new AgentError(
      'TARGET_TOO_SMALL',
      `Destination device is too small: ${target} has ${facts.size} bytes, ${source} has ${size}`,
      {
        hint:
          facts.size === 0
            ? nbdUserHint
            : `enlarge the target to at least ${size} bytes (truncate --size=${size} IMAGE)`,
      },
    );
  if (facts.readOnly)
    throw new AgentError('TARGET_READ_ONLY', `${target} is read-only`, {
      hint: nbdUserHint,
    });
  const tail = size % facts.minimumBlock;
  if (tail !== 0 && facts.size < size + facts.minimumBlock - tail)
    throw new AgentError(
      'TARGET_TOO_SMALL',
      `${target} has ${facts.size} bytes and is written in blocks of ${facts.minimumBlock}, so the last ` +
        `${tail} bytes of ${source} (${size} bytes) cannot be written`,
      { hint: `enlarge the target to ${size + facts.minimumBlock - tail} bytes` },
    );
}
