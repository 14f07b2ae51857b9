/** Steps that back up without trouble: every kind, target and set of devices, with random options. */
import fc from 'fast-check';
import type { JobOptionsDocument } from '../../src/api/job-options.ts';
import { type ErrorCode, judge } from './judge.ts';
import { type Command, type Recorder, step } from './step.ts';
import type { DiskName } from './disk.ts';
import type { BackupRequest, During, Kind, Pair, TargetName, World } from './world.ts';

export const anyTarget = fc.constantFrom<TargetName>('file', 'dattosrv', 'nbdkit', 'vault', 'vault', 'copy');
/** Mostly pairs of one disk. With both disks, each has a target of its own. */
export const anyPairs = fc
  .tuple(fc.constantFrom('a', 'a', 'a', 'b', 'a+b'), anyTarget, anyTarget, fc.boolean())
  .map(([disks, first, second, apart]): readonly Pair[] => {
    const [disk, other] = disks.split('+') as DiskName[];
    const one = { disk: disk!, target: first };
    return other === undefined ? [one] : [one, { disk: other, target: apart ? second : first }];
  });
const anyKind = fc.constantFrom<Kind>('full', 'incremental', 'incremental', 'incremental', 'differential');

const anyOptions = fc.record<JobOptionsDocument>(
  {
    connections: fc.constantFrom(1, 1, 1, 2),
    max_passes: fc.constantFrom(1, 2, 5),
    verify: fc.constantFrom('none', 'sample', 'full'),
    trim: fc.boolean(),
    tracker: fc.constantFrom('auto', 'auto', 'auto', 'none'),
    fingerprints: fc.constantFrom(true, true, false),
    fallback: fc.constantFrom(true, true, true, false),
  },
  { requiredKeys: ['connections'] },
);

export function backupSteps(recorder: Recorder): fc.Arbitrary<Command>[] {
  const bothCopies = fc.tuple(anyKind, fc.nat({ max: 1000 })).map(([kind, seed]) =>
    step(recorder, {
      kind: 'the same data in one job to both copies of the vault',
      details: `${kind} ${seed}`,
      needs: ({ disks: { a, b } }) => a.mounted === 'rw' && a.size === b.size,
      run: async (world) => {
        const { a, b } = world.disks;
        await world.copyVault();
        await a.writeFiles(seed, true);
        await a.unmount();
        await b.unmount();
        await b.cloneOf(a);
        await a.mount('rw');
        const pairs = [
          { disk: 'a', target: 'vault' },
          { disk: 'b', target: 'copy' },
        ] as const;
        return backUp(recorder, world, { kind, pairs, options: { connections: 1 } });
      },
    }),
  );
  const plain = fc.tuple(anyKind, anyPairs, anyOptions).map(([kind, pairs, options]) =>
    step(recorder, {
      kind,
      details: `${nameOf(pairs)} ${JSON.stringify(options)}`,
      needs: (world) => areThere(world, pairs),
      run: (world) => backUp(recorder, world, { kind, pairs, options }),
    }),
  );
  return [...Array<typeof plain>(9).fill(plain), bothCopies];
}

export function areThere(world: World, pairs: readonly Pair[]): boolean {
  return world.copy !== undefined || pairs.every(({ target }) => target !== 'copy');
}

export function nameOf(pairs: readonly Pair[]): string {
  return pairs.map(({ disk, target }) => `${disk} to ${target}`).join(' and ');
}

/** Backs up and judges. `errors`: the errors that `during` may cause. */
export async function backUp(
  recorder: Recorder,
  world: World,
  request: BackupRequest,
  { during, errors = [] }: { during?: During; errors?: readonly ErrorCode[] } = {},
): Promise<string> {
  const outcome = await world.backUp(request, during);
  const allowed = request.options.fallback === false ? [...errors, 'CHAIN_IN_DOUBT' as const] : errors;
  const said = await judge(world, request, outcome, allowed, (image) => recorder.image(image));
  if (outcome.status?.state === 'SUCCEEDED')
    for (const { disk, target } of request.pairs) world.backedUp.add(`${disk} ${target}`);
  return said;
}
