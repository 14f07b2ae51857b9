/** `points [POINT]`: lists the recovery points of a vault, or shows one. */
import type { Command } from 'commander';
import { filterPoints } from '../../vault/points/find.ts';
import { listChecks } from '../../vault/points/checks.ts';
import { type PointList, findPoint, listPoints, listProtected } from '../../vault/points/points.ts';
import type { Vault } from '../../vault/vault.ts';
import { exitWithWarnings } from '../outcome.ts';
import type { Context } from '../context.ts';
import { type OnePointDocument, type PointFacts, type PointsDocument, pointDocument } from './documents.ts';
import type { VaultValues } from '../vault-options.ts';
import { renderPoint, renderPoints } from './render-points.ts';
import { withVault } from './session.ts';

interface Values extends VaultValues {
  readonly device?: string;
  readonly machine?: string;
}

export async function showPoints(context: Context, self: Command): Promise<number> {
  const [name] = self.args;
  const { device, machine } = self.opts<Values>();
  if (name !== undefined) {
    const document = await withVault(context, self, async ({ vault, signal }) => {
      const point = await findPoint(vault, name, { device, machine }, { signal });
      const modified = (await vault.store.head(`points/${point.id}`, { signal }))?.modified ?? 0;
      const facts = {
        ...(await readFacts(vault, signal, point.id)),
        stored: new Map([[point.id, modified]]),
      };
      return { ...pointDocument(point, facts), layout: point.machine.layout } satisfies OnePointDocument;
    });
    context.print(document, () => renderPoint(document));
    return 0;
  }
  const document = await withVault(context, self, async ({ vault, signal }) => {
    const list = await listPoints(vault, { signal });
    const points = filterPoints(list.points, { device, machine });
    return pointsDocument(
      vault,
      { ...list, points },
      {
        ...(await readFacts(vault, signal)),
        stored: list.stored,
      },
    );
  });
  context.print(document, () => renderPoints(document));
  return document.damaged.length > 0 ? exitWithWarnings : 0;
}

export async function readFacts(
  vault: Vault,
  signal: AbortSignal,
  point?: string,
): Promise<Omit<PointFacts, 'stored'>> {
  const [protectedIds, { checks }] = await Promise.all([
    listProtected(vault, { signal }),
    listChecks(vault, point, { signal }),
  ]);
  return { protected: protectedIds, checks };
}

function pointsDocument(vault: Vault, list: PointList, facts: PointFacts): PointsDocument {
  return {
    vault: { id: vault.id, name: vault.name },
    points: list.points.map((point) => pointDocument(point, facts)),
    damaged: list.damaged.map(({ key, error }) => ({ key, code: error.code, message: error.message })),
  };
}
