/** Proves by systemd's own check that the units of packaging/ are correct and in the order of the manual. */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { rebootCommand } from '../../src/daemon/reboot/run.ts';
import { exec } from '../helpers/exec.ts';

const packaging = join(import.meta.dirname, '../../packaging');
const units = readdirSync(packaging).filter((name) => name.endsWith('.service'));

test('systemd-analyze verify finds nothing wrong with the units', async (t) => {
  const found = await exec('systemd-analyze', ['--version']).then(
    () => true,
    () => false,
  );
  if (!found) {
    t.skip('systemd-analyze is not installed');
    return;
  }
  const directory = mkdtempSync(join(tmpdir(), 'dattod-units-'));
  try {
    for (const name of units) {
      // The administrator who installs the units changes this path. For the check it has to exist here.
      const text = readFileSync(join(packaging, name), 'utf8').replaceAll(
        '/opt/linux-agent/dattod',
        '/bin/true',
      );
      writeFileSync(join(directory, name), text);
    }
    const { stdout, stderr } = await exec('systemd-analyze', [
      'verify',
      '--man=no',
      ...units.map((name) => join(directory, name)),
    ]);
    const ours = `${stdout}${stderr}`.split('\n').filter((line) => line.includes('dattod'));
    assert.deepEqual(ours, []);
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test('each command in the units is one that dattod knows', () => {
  const commands: string[] = [];
  for (const name of [...units, 'dattod.shutdown'])
    for (const [, words] of readFileSync(join(packaging, name), 'utf8').matchAll(
      /^(?:ExecStart=|ExecStop=|exec )\/opt\/linux-agent\/dattod reboot (.+)$/gm,
    ))
      commands.push(words!);
  assert.deepEqual(new Set(commands), new Set(['resume', 'save', 'save --late']));
  for (const words of commands) {
    const ran: string[] = [];
    rebootCommand(
      (what) => {
        ran.push(what);
        return Promise.resolve();
      },
      () => undefined,
    ).parse(words.split(' '), { from: 'user' });
    assert.deepEqual(ran, words.split(' ').slice(0, 1));
  }
  assert.notEqual(statSync(join(packaging, 'dattod.shutdown')).mode & 0o111, 0, 'it can be executed');
});
