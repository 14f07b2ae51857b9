/** Renders an active writer or lock of a vault. */
import { printable } from '../render/table.ts';
import type { ParticipantDocument } from '../../api/vault/output/upkeep.ts';

export function renderParticipant({ id, what, host, pid, started }: ParticipantDocument): string {
  if (host === null) return `${id}, whose document cannot be read`;
  return `${id}, ${what} by process ${pid ?? '?'} of ${printable(host)}, started ${started}`;
}
