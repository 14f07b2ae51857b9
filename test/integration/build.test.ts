/**
 * build/ is complete in itself: it runs on a machine without Node, from anywhere, through links, and two builds
 * have the same bytes. Needs ./one_step_build to have run.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  cpSync,
  globSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

const root = join(import.meta.dirname, '../..');
const programs = ['dattod', 'dattocli', 'dattosrv', 'fsawarebdcopy', 'in_use_sectors'];
let scratch: string;

before(() => {
  scratch = mkdtempSync(join(tmpdir(), 'build-test-'));
});
after(() => rmSync(scratch, { recursive: true, force: true }));

test('two builds of one commit are identical, wherever they are made', () => {
  const [one, other] = ['one', 'other place'].map((name) => {
    const folder = join(scratch, name);
    execFileSync(join(root, 'one_step_build'), ['--out', folder], { stdio: 'pipe' });
    return fingerprints(folder);
  });
  assert.deepEqual(one, other);
});

test('a copy of build/ runs without Node, sources and node_modules, through links and from anywhere', () => {
  const copy = join(scratch, 'a place', 'opt');
  cpSync(join(root, 'build'), copy, { recursive: true });
  const links = join(scratch, 'bin');
  mkdirSync(links);
  const bare = join(scratch, 'bare');
  mkdirSync(bare);
  // sh and what the launchers call, and nothing else.
  for (const tool of ['sh', 'readlink', 'dirname'])
    symlinkSync(
      execFileSync('sh', ['-c', `command -v ${tool}`], { encoding: 'utf8' }).trim(),
      join(bare, tool),
    );
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
  for (const program of programs) {
    symlinkSync(join('..', 'a place', 'opt', program), join(links, program));
    symlinkSync(program, join(links, `${program}-again`));
    const answer = execFileSync(join(links, `${program}-again`), ['--version'], {
      cwd: '/',
      env: { PATH: bare, NODE_OPTIONS: '--no-such-option' },
      encoding: 'utf8',
    });
    assert.equal(answer.trim().split(' ').at(-1), version, program);
  }
});

function fingerprints(folder: string): Record<string, string> {
  const files = globSync('**', { cwd: folder }).filter((path) => lstatSync(join(folder, path)).isFile());
  return Object.fromEntries(
    files.sort().map((path) => [
      `${path} ${(lstatSync(join(folder, path)).mode & 0o777).toString(8)}`,
      createHash('sha256')
        .update(readFileSync(join(folder, path)))
        .digest('hex'),
    ]),
  );
}
