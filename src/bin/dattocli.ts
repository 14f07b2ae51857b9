/** The entry of the command dattocli (docs/cli.md). */
import { callsAreRunning } from '../base/bounded-call.ts';
import { processIo } from '../cli/io.ts';
import { runDattocli } from '../cli/main.ts';

process.exitCode = await runDattocli(process.argv.slice(2), processIo());
if (callsAreRunning()) {
  const { exitNow } = await import('../linux/exit.ts');
  exitNow(process.exitCode);
}
