/** dattocli, the command (docs/cli.md). */
import { processIo } from '../cli/io.ts';
import { runDattocli } from '../cli/main.ts';

process.exitCode = await runDattocli(process.argv.slice(2), processIo());
