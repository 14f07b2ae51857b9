/**
 * Holds the manuals to the program: `scripts/node scripts/docs.ts --check` fails where a generated part of
 * docs/ is not what the code says, `--write` brings it up to date. `npm run check` has the same as a test.
 */
import { checkDocs, writeDocs } from './docs/generated.ts';

const [how] = process.argv.slice(2);
if (how === '--write') {
  for (const path of await writeDocs()) console.log(`docs: wrote ${path}`);
} else if (how === '--check') {
  const stale = await checkDocs();
  for (const path of stale)
    console.error(`docs: ${path} is not what the code says; run scripts/node scripts/docs.ts --write`);
  process.exitCode = stale.length === 0 ? 0 : 1;
} else {
  console.error('usage: scripts/node scripts/docs.ts --check | --write');
  process.exitCode = 2;
}
