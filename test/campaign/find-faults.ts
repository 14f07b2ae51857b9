/**
 * Shows that the campaign finds the faults of faults.ts. For one fault after the other it removes the fix
 * from a scratch copy of the sources, and plays histories until one fails.
 *
 *     scripts/node test/campaign/find-faults.ts [NAME...] [--minutes 5] [--seed N]
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { atEnd, type EndingTest } from '../helpers/cleanup.ts';
import { type Fault, faults } from './faults.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { minutes: { type: 'string', default: '5' }, seed: { type: 'string', default: '1' } },
});
let missed = 0;
for (const fault of faults)
  if (positionals.length === 0 || positionals.includes(fault.name)) await find(fault);
process.exitCode = missed > 0 ? 1 : 0;

async function find(fault: Fault): Promise<void> {
  const hooks: (() => Promise<void>)[] = [];
  const t = { after: (hook: () => Promise<void>) => void hooks.push(hook) };
  const copy = mkdtempSync(join(tmpdir(), 'campaign-fault-'));
  atEnd(t, () => rmSync(copy, { recursive: true, force: true }));
  try {
    for (const name of ['src', 'test', 'scripts', 'package.json'])
      cpSync(join(root, name), join(copy, name), { recursive: true });
    symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'));
    for (const { file, from, to } of fault.edits) {
      const path = join(copy, file);
      writeFileSync(
        path,
        readFileSync(path, 'utf8').replace(from, () => to),
      );
    }
    const output = await play(t, copy, fault.favour);
    const failure = /^FAILED [^]*?(?=^\s+at )/m.exec(output)?.[0].trim();
    const played = /^\d+ histories.*$/m.exec(output)?.[0] ?? 'the campaign did not end';
    if (failure === undefined) missed++;
    console.log(
      `fault ${fault.name} (${fault.about}): ${failure === undefined ? 'NOT FOUND' : 'found'}; ${played}`,
    );
    console.log(`  ${(failure ?? output.slice(-1000)).replaceAll('\n', '\n  ')}\n`);
  } finally {
    for (const hook of hooks) await hook();
  }
}

async function play(t: EndingTest, copy: string, favour: string): Promise<string> {
  const child = spawn(
    join(copy, 'scripts/node'),
    [
      ...['--disable-warning=ExperimentalWarning', 'test/campaign/main.ts', '--quiet'],
      ...['--minutes', values.minutes, '--seed', values.seed, '--favour', favour],
      ...['--shrink-seconds', '90'],
    ],
    { cwd: copy, stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const closed = once(child, 'close');
  atEnd(t, async () => {
    child.kill('SIGTERM');
    await closed;
  });
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
  await closed;
  return output;
}
