/** Reads the document of a recovery point (src/api/vault/point.ts). */
import { point } from '../../api/vault/point.ts';
import type { Point } from '../../api/vault/point.ts';
import { formatted } from '../../api/vault/stored.ts';
import { AgentError } from '../../base/errors.ts';
import { manyStored } from '../stored.ts';

export type { Point, PointDevice, PointMachine } from '../../api/vault/point.ts';

const readFormat = manyStored(formatted);
const readPoint = manyStored(point);

/** Messages begin with `where`. Unknown fields are left out. Throws VAULT_DAMAGED, VAULT_TOO_NEW. */
export function parsePoint(id: string, document: unknown, where: string): Point {
  const { format } = readFormat(document, where);
  if (format !== 1)
    throw new AgentError('VAULT_TOO_NEW', `${where} has format ${format}; this program knows format 1`, {
      hint: 'use a newer version of this program',
    });
  const found = readPoint(document, where);
  if (found.id !== id)
    throw new AgentError('VAULT_DAMAGED', `${where}: id is ${JSON.stringify(found.id)}, not ${id}`);
  return found;
}
