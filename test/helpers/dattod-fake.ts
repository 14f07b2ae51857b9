/** dattod with a fake engine and fake devices (fake-engine.ts). Everything else is real. */
import { tryLock } from '../../src/linux/flock.ts';
import { runDattod } from '../../src/daemon/run.ts';
import { fakeDependencies } from './fake-engine.ts';

process.exit(
  await runDattod(process.argv.slice(2), () => Promise.resolve({ ...fakeDependencies(100), tryLock })),
);
