/** Parts of the `--json` documents of vaults (src/api/vault/output) that several commands print. */
import type { KeyDocument } from '../../api/vault/output/keys.ts';
import type { ParticipantDocument } from '../../api/vault/output/upkeep.ts';
import type { KeySlot } from '../../vault/key-slots.ts';
import type { Participant } from '../../vault/prune/participants.ts';

export function keyDocument({ id, kind, label, created }: KeySlot): KeyDocument {
  return { id, kind, label, created };
}

export function participantDocument({
  id,
  what,
  owner,
  started,
  lastSign,
}: Participant): ParticipantDocument {
  return {
    ...{ id, what, started },
    host: owner?.host ?? null,
    pid: owner?.pid ?? null,
    last_sign: new Date(lastSign).toISOString(),
  };
}
