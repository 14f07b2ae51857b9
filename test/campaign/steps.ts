/**
 * The steps of random histories, for fast-check's model runner: it makes sequences of them from a seed, and shrinks one
 * that fails. The model knows only what decides which step can come next; the truth comes from judge.ts.
 */
import fc from 'fast-check';
import type { JobOptionsDocument } from '../../src/daemon/documents.ts';
import { judge } from './judge.ts';
import type { Filesystem, Kind, Mounted, TargetName, World } from './world.ts';

export interface Model {
  mounted: Mounted;
  filesystem: Filesystem;
  stateKept: boolean;
  readonly imagesKept: Set<'file' | 'server'>;
  readonly backedUp: Set<TargetName>;
}

/** Receives one line for each step that ran. */
export type Log = (line: string) => void;

type Command = fc.AsyncCommand<Model, World>;

/** A step from its parts: what it needs of the model, what it does, and what it does to the model. */
function step(
  name: string,
  needs: (model: Model) => boolean,
  run: (world: World, model: Model) => Promise<string | undefined>,
  log: Log,
): Command {
  return {
    check: needs,
    run: async (model, world) => {
      const said = await run(world, model).catch((cause: unknown) => {
        throw new Error(`${name}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
      });
      log(said === undefined ? name : `${name}: ${said}`);
    },
    toString: () => name,
  };
}

const kinds: readonly Kind[] = ['full', 'incremental', 'incremental', 'incremental', 'differential'];
const targets: readonly TargetName[] = ['file', 'server', 'vault'];
const images = ['file', 'server'] as const;

const optionsOf = fc.record<JobOptionsDocument>(
  {
    max_passes: fc.constantFrom(1, 2, 5),
    verify: fc.constantFrom('none', 'sample', 'full'),
    trim: fc.boolean(),
    connections: fc.constantFrom(1, 2),
    tracker: fc.constantFrom('auto', 'auto', 'none'),
  },
  { requiredKeys: [] },
);

/** What happens while a job runs. `ms`: after its start. */
type Disturbance = 'cancel' | 'kill' | 'write' | 'older image' | 'remount';

/** All steps that a history is made of. */
export function stepsFor(log: Log): fc.Arbitrary<Command>[] {
  const seed = fc.integer({ min: 0, max: 32_767 });
  const writable = (model: Model): boolean => model.mounted === 'rw';
  const idle = (model: Model): boolean => model.mounted === 'no';

  const write = fc.tuple(seed, fc.boolean()).map(([number, sync]) =>
    step(
      `write files ${number}${sync ? ' and sync' : ''}`,
      writable,
      async (world) => {
        await world.writeFiles(number, sync);
        return undefined;
      },
      log,
    ),
  );
  const raw = fc.array(fc.integer({ min: 0, max: 81_919 }), { minLength: 1, maxLength: 4 }).map((blocks) =>
    step(
      `write raw blocks ${blocks.join(' ')}`,
      idle,
      async (world) => {
        await world.writeRaw(blocks);
        // The kernel may refuse to mount what was overwritten: only a new filesystem is mounted after that.
        return undefined;
      },
      log,
    ),
  );
  const mount = fc.constantFrom<'rw' | 'ro'>('rw', 'rw', 'ro').map((how) =>
    step(
      `mount ${how}`,
      idle,
      async (world, model) => {
        try {
          await world.mount(how);
        } catch {
          await world.makeFilesystem(model.filesystem);
          await world.mount(how);
        }
        model.mounted = how;
        return undefined;
      },
      log,
    ),
  );
  const unmount = fc.constant(
    step(
      'unmount',
      (model) => model.mounted !== 'no',
      async (world, model) => {
        await world.unmount();
        model.mounted = 'no';
        return undefined;
      },
      log,
    ),
  );
  const remount = fc.constant(
    step(
      'remount',
      (model) => model.mounted !== 'no',
      async (world, model) => {
        const how = model.mounted === 'rw' ? 'ro' : 'rw';
        await world.remount(how);
        model.mounted = how;
        return how;
      },
      log,
    ),
  );
  const mkfs = fc.constantFrom<Filesystem>('ext4', 'xfs').map((type) =>
    step(
      `mkfs ${type}`,
      idle,
      async (world, model) => {
        await world.makeFilesystem(type);
        model.filesystem = type;
        return undefined;
      },
      log,
    ),
  );
  const trim = fc.constant(
    step(
      'fstrim',
      writable,
      async (world) => {
        await world.trim();
        return undefined;
      },
      log,
    ),
  );
  const backup = fc
    .tuple(fc.constantFrom(...kinds), fc.constantFrom(...targets), optionsOf)
    .map(([kind, target, options]) =>
      step(
        `${kind} to ${target} ${JSON.stringify(options)}`,
        () => true,
        async (world, model) => {
          const outcome = await world.backUp(kind, target, options);
          const said = await judge(world, target, outcome);
          if (outcome.refused === undefined && outcome.status.state === 'SUCCEEDED')
            model.backedUp.add(target);
          return said;
        },
        log,
      ),
    );
  const disturbed = fc
    .tuple(
      fc.constantFrom<Disturbance>('cancel', 'kill', 'write', 'older image', 'remount'),
      fc.constantFrom(...targets),
      fc.integer({ min: 0, max: 600 }),
      seed,
    )
    .map(([how, target, ms, number]) =>
      step(
        `incremental to ${target}, ${how} after ${ms} ms`,
        (model) =>
          how === 'older image'
            ? target === 'server' && model.imagesKept.has('server')
            : how === 'write' || how === 'remount'
              ? model.mounted !== 'no'
              : true,
        async (world) => {
          // Slow enough that the moment lies within the job.
          const outcome = await world
            .backUp('incremental', target, { rate: 4_000_000, verify: 'full' }, async (job) => {
              await world.wait(ms);
              await disturb(world, how, job, number);
            })
            .finally(() => world.settle());
          return judge(world, target, outcome);
        },
        log,
      ),
    );
  const daemon = fc.constantFrom<'kill' | 'end'>('kill', 'end').map((how) =>
    step(
      `${how} the daemon and start it`,
      () => true,
      async (world) => {
        await world.restartDaemon(how);
        return undefined;
      },
      log,
    ),
  );
  const keepState = fc.constant(
    step(
      'copy the state directory',
      () => true,
      async (world, model) => {
        await world.keepState();
        model.stateKept = true;
        return undefined;
      },
      log,
    ),
  );
  const putBackState = fc.constant(
    step(
      'put the older state directory back',
      (model) => model.stateKept,
      async (world) => {
        await world.putBackState();
        return undefined;
      },
      log,
    ),
  );
  const keepImage = fc.constantFrom(...images).map((target) =>
    step(
      `copy the image at ${target}`,
      (model) => model.backedUp.has(target),
      async (world, model) => {
        if (await world.keepImage(target)) model.imagesKept.add(target);
        return undefined;
      },
      log,
    ),
  );
  const putBackImage = fc.constantFrom(...images).map((target) =>
    step(
      `put the older image back at ${target}`,
      (model) => model.imagesKept.has(target),
      async (world) => {
        await world.putBackImage(target);
        return undefined;
      },
      log,
    ),
  );
  const tidy = fc.constantFrom<'forget and prune' | 'check'>('forget and prune', 'check').map((what) =>
    step(
      `${what} the vault`,
      (model) => model.backedUp.has('vault'),
      async (world) => {
        await (what === 'check' ? world.checkVault() : world.forgetAndPrune());
        return undefined;
      },
      log,
    ),
  );
  // Writes and backups come more often than what disturbs them.
  return [
    ...[write, write, write, backup, backup, backup, backup, disturbed, disturbed],
    ...[raw, mount, unmount, remount, mkfs, trim, daemon],
    ...[keepState, putBackState, keepImage, putBackImage, tidy],
  ];
}

async function disturb(world: World, how: Disturbance, job: string, number: number): Promise<void> {
  if (how === 'cancel') await world.cancel(job);
  else if (how === 'kill') await world.restartDaemon('kill');
  else if (how === 'older image') await world.restartServer(() => world.putBackImage('server'));
  else if (how === 'write') {
    if (world.mounted === 'rw') await world.writeFiles(number, true);
  } else {
    // Writable, written, and as before: the mounts are the same at the end of the job as at its start.
    const before = world.mounted;
    await world.remount(before === 'ro' ? 'rw' : 'ro');
    if (world.mounted === 'rw') await world.writeFiles(number, true);
    await world.remount(before === 'rw' ? 'rw' : 'ro');
  }
}
