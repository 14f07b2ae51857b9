/** dattod with an engine and devices that are none (fake-engine.ts); everything else is real. */
import { tryLock } from '../../src/linux/flock.ts';
import { runDattod } from '../../src/daemon/run.ts';
import { fakeCollaborators } from './fake-engine.ts';

process.exit(
  await runDattod(process.argv.slice(2), () => Promise.resolve({ ...fakeCollaborators(100), tryLock })),
);
