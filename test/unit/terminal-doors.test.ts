/**
 * Proves that every output to a terminal or a log passes src/base/visible.ts, or consists only of our own
 * text.
 */
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import test from 'node:test';

/** The output of each file that does not pass through `visible`. */
const doors: Readonly<Record<string, string>> = {
  'src/base/standard-output.ts': 'writeSync of what `visible` returned',
  'src/base/visible.ts': 'the door itself',
  'src/bin/fsawarebdcopy.ts': 'progress: numbers',
  'src/cli/ask.ts': 'the end of a line',
  'src/cli/io.ts': 'no text',
  'src/cli/render/progress-reporter.ts': 'progress: phases and numbers',
  'src/freeze/guard-main.ts': 'JSON for the daemon, through a pipe',
  'src/nbd/server/stderr-sink.ts': 'lines of the log',
  'src/restore/mount/export-main.ts': 'JSON for the command, through a pipe',
};

test('only these sources write to standard output or standard error themselves', () => {
  const direct =
    /process\.std(out|err)\.write|\bconsole\.|writeSync\((1|2),|stream: process\.stderr|output\.write\('/;
  const found = globSync('src/**/*.ts')
    .filter((path) => !path.endsWith('.test.ts'))
    .filter((path) => direct.test(readFileSync(path, 'utf8')));
  const unknown = found.filter((path) => !(path in doors));
  assert.deepEqual(unknown, [], 'use StandardOutput or writeError, or say here why not');
});
