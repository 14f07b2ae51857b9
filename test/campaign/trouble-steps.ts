/**
 * Steps that cause trouble: cancelled and paused jobs, dead servers, full disks, writers and growth, and
 * killed programs. Also older copies that are put back (of an image, of the state directory, of the whole
 * machine).
 */
import fc from 'fast-check';
import { KiB } from '../../src/base/bytes.ts';
import { anyPairs, anyTarget, areThere, backUp, nameOf } from './backup-steps.ts';
import { anyDisk } from './device-steps.ts';
import type { ErrorCode } from './judge.ts';
import { type Command, type Recorder, step } from './step.ts';
import type { ImageTarget, Moment, Pair, Room, TargetName, World } from './world.ts';

interface Trouble {
  readonly kind: string;
  /** Errors that the job may end with. */
  readonly errors: readonly ErrorCode[];
  readonly moments: readonly Moment[];
  readonly needs?: (world: World, first: Pair) => boolean;
  readonly run: (world: World, at: TroublePlace) => Promise<void>;
}

/** The first device of the job and its target, which get the trouble. */
interface TroublePlace extends Pair {
  readonly job: string;
  readonly seed: number;
}

const everywhere: readonly Moment[] = ['start', 'pre-freeze', 'frozen', 'post-thaw'];
const outside: readonly Moment[] = ['start', 'pre-freeze', 'post-thaw'];
const isServer = (target: TargetName): target is 'dattosrv' | 'nbdkit' =>
  target === 'dattosrv' || target === 'nbdkit';
const roomOf = (target: TargetName): Room => (target === 'vault' || target === 'copy' ? 'vaults' : 'images');

const troubles: readonly Trouble[] = [
  {
    kind: 'cancelled',
    errors: ['CANCELLED'],
    moments: everywhere,
    run: async (world, { job }) => {
      // The answer comes when the job has ended.
      void world.control(job, 'stop').catch(() => undefined);
      await world.wait(50);
    },
  },
  {
    kind: 'paused',
    errors: [],
    moments: outside,
    run: async (world, { job, seed }) => {
      await world.control(job, 'pause');
      await world.wait(seed % 100);
      await world.control(job, 'resume');
    },
  },
  {
    kind: 'daemon killed',
    errors: ['JOB_INTERRUPTED'],
    moments: everywhere,
    run: (world) => world.restartDaemon('kill'),
  },
  {
    kind: 'guard killed',
    errors: ['FREEZE_FAILED', 'FREEZE_TIMEOUT'],
    moments: ['pre-freeze', 'frozen'],
    run: (world) => {
      world.killGuard();
      return Promise.resolve();
    },
  },
  {
    kind: 'server killed',
    errors: [],
    moments: everywhere,
    needs: (_world, { target }) => isServer(target),
    run: (world, { target }) => world.restartServer(target as 'dattosrv' | 'nbdkit'),
  },
  {
    kind: 'server slow',
    errors: [],
    moments: everywhere,
    needs: (_world, { target }) => isServer(target),
    run: (world, { target, seed }) => world.stopServerFor(target as 'dattosrv' | 'nbdkit', 50 + (seed % 300)),
  },
  {
    kind: 'write errors',
    errors: ['TARGET_WRITE_ERROR', 'NBD_SERVER_ERROR'],
    moments: ['start', 'pre-freeze', 'frozen'],
    needs: (_world, { target }) => target === 'nbdkit',
    run: (world) => {
      world.setWriteErrors(true);
      return Promise.resolve();
    },
  },
  {
    kind: 'target full',
    errors: ['TARGET_FULL', 'TARGET_WRITE_ERROR', 'NBD_SERVER_ERROR', 'VAULT_FULL'],
    moments: ['start', 'pre-freeze', 'frozen'],
    run: (world, { target, seed }) => world.leaveRoom(roomOf(target), (seed % 200) * KiB),
  },
  {
    kind: 'state full',
    errors: ['FILE_ERROR'],
    moments: ['start', 'pre-freeze', 'frozen'],
    run: (world, { seed }) => world.leaveRoom('state', (seed % 50) * KiB),
  },
  {
    kind: 'files written',
    errors: [],
    moments: outside,
    needs: ({ disks }, { disk }) => disks[disk].mounted === 'rw',
    run: ({ disks }, { disk, seed }) => disks[disk].writeFiles(seed, seed % 2 === 0),
  },
  {
    kind: 'written raw',
    errors: [],
    moments: ['start'],
    needs: ({ disks }, { disk }) => disks[disk].mounted === 'no',
    run: ({ disks }, { disk, seed }) => disks[disk].writeRaw([seed % 96], 64 * KiB),
  },
  {
    // The mount becomes read-only again at the end, so the mounts are the same as at the start.
    kind: 'writable for a moment',
    errors: ['DEVICE_BUSY'],
    moments: ['start'],
    needs: ({ disks }, { disk }) => disks[disk].mounted === 'ro',
    run: async ({ disks }, { disk, seed }) => {
      await disks[disk].remount('rw');
      await disks[disk].writeFiles(seed, true);
      await disks[disk].remount('ro');
    },
  },
  {
    kind: 'grown',
    errors: ['DEVICE_GONE'],
    moments: ['start', 'pre-freeze', 'post-thaw'],
    needs: ({ disks }, { disk }) => disks[disk].mayGrow,
    run: ({ disks }, { disk, seed }) => disks[disk].grow(seed % 3 > 0),
  },
];

export function troubleSteps(recorder: Recorder): fc.Arbitrary<Command>[] {
  const seed = fc.integer({ min: 0, max: 32_767 });
  const disturbed = troubles.map((trouble) =>
    fc
      .tuple(anyPairs, fc.constantFrom(...trouble.moments), seed, fc.boolean())
      .map(([pairs, at, number, slow]) =>
        step(recorder, {
          kind: `incremental, ${trouble.kind}`,
          details: `${nameOf(pairs)} at ${at} ${number}${slow ? ' slowly' : ''}`,
          needs: (world) => areThere(world, pairs) && (trouble.needs?.(world, pairs[0]!) ?? true),
          run: async (world) => {
            const options = {
              connections: 1 + (number % 2),
              // The rate is so low that a moment right after the start lies within the job.
              ...(slow || at === 'start' ? { rate: 8_000_000 } : {}),
            };
            const during = {
              ...{ at, delay: at === 'start' ? number % 400 : 0 },
              run: (job: string) => trouble.run(world, { ...pairs[0]!, job, seed: number }),
            };
            try {
              const request = { kind: 'incremental', pairs, options } as const;
              return await backUp(recorder, world, request, { during, errors: trouble.errors });
            } finally {
              world.setWriteErrors(false);
              for (const room of ['state', 'images', 'vaults'] as const)
                await world.leaveRoom(room, undefined);
            }
          },
        }),
      ),
  );

  const olderImage = fc
    .tuple(anyDisk, fc.constantFrom<'dattosrv' | 'nbdkit'>('dattosrv', 'nbdkit'), seed)
    .map(([disk, target, number]) =>
      step(recorder, {
        kind: 'incremental, server comes back with an older image',
        details: `${disk} to ${target} ${number}`,
        needs: (world) => world.disks[disk].mounted === 'rw',
        run: async (world) => {
          const pairs = [{ disk, target }];
          if (!(await world.keepImage(target, disk))) {
            await backUp(recorder, world, { kind: 'full', pairs, options: { connections: 1 } });
            await world.keepImage(target, disk);
          }
          await world.disks[disk].writeFiles(number, true);
          const putBack = (): Promise<void> =>
            world.restartServer(target, () => world.putBackImage(target, disk));
          const at = number % 3 === 0 ? 'post-thaw' : 'pre-freeze';
          return backUp(
            recorder,
            world,
            {
              ...{ kind: 'incremental', pairs },
              // Without the samples only the check after the reconnect can find it.
              options: { connections: 1, verify: number % 2 === 0 ? 'none' : 'sample' },
            },
            { during: { at, run: putBack }, errors: ['TARGET_MISMATCH'] },
          );
        },
      }),
    );

  const anyImage = fc.constantFrom<ImageTarget>('file', 'dattosrv', 'nbdkit');
  const keepImage = fc.tuple(anyDisk, anyImage).map(([disk, target]) =>
    step(recorder, {
      kind: 'copy an image',
      details: `${disk} at ${target}`,
      needs: (world) => world.backedUp.has(`${disk} ${target}`),
      run: async (world) => {
        await world.keepImage(target, disk);
      },
    }),
  );
  const putBackImage = fc.tuple(anyDisk, anyImage).map(([disk, target]) =>
    step(recorder, {
      kind: 'put an older image back',
      details: `${disk} at ${target}`,
      needs: (world) => world.keptImages.has(world.imageOf(target, disk)),
      run: (world) => world.putBackImage(target, disk),
    }),
  );

  const daemon = fc
    .constantFrom<'kill' | 'end'>('kill', 'end')
    .map((how) => step(recorder, { kind: `${how} the daemon`, run: (world) => world.restartDaemon(how) }));
  const keepState = fc.constant(
    step(recorder, { kind: 'copy the state', run: (world) => world.keepState() }),
  );
  const putBackState = fc.constant(
    step(recorder, {
      kind: 'put the older state back',
      needs: (world) => world.stateKept,
      run: (world) => world.putBackState(),
    }),
  );
  const rolledBack = fc.tuple(anyDisk, anyTarget, seed).map(([disk, target, number]) =>
    step(recorder, {
      kind: 'roll the state back over a job',
      details: `${disk} to ${target} ${number}`,
      needs: (world) => areThere(world, [{ disk, target }]) && world.disks[disk].mounted === 'rw',
      run: async (world) => {
        await world.keepState();
        await world.disks[disk].writeFiles(number, true);
        const request = {
          kind: 'incremental',
          pairs: [{ disk, target }],
          options: { connections: 1 },
        } as const;
        const said = await backUp(recorder, world, request);
        await world.putBackState();
        return said;
      },
    }),
  );
  const reverted = fc.tuple(anyDisk, anyTarget, seed).map(([disk, target, number]) =>
    step(recorder, {
      kind: 'revert the machine',
      details: `${disk} to ${target} ${number}`,
      needs: (world) => areThere(world, [{ disk, target }]) && world.disks[disk].mounted === 'rw',
      run: async (world) => {
        const { size } = world.disks[disk];
        await world.keepMachine();
        await world.disks[disk].mount('rw');
        await world.disks[disk].writeFiles(number, true);
        const request = {
          kind: 'incremental',
          pairs: [{ disk, target }],
          options: { connections: 1 },
        } as const;
        const said = await backUp(recorder, world, request);
        if (world.disks[disk].size === size) await world.revertMachine();
        await world.disks[disk].mount('rw');
        return said;
      },
    }),
  );

  return [
    ...[...disturbed, ...disturbed, olderImage, olderImage, olderImage],
    ...[keepImage, putBackImage, putBackImage, daemon, keepState, putBackState],
    ...[rolledBack, rolledBack, rolledBack, reverted],
  ];
}
