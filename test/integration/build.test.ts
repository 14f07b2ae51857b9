/**
 * Proves that build/ is complete: it runs on a machine without Node, from any directory, through links, and
 * two builds have the same bytes. Needs ./one_step_build to have run.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import {
  cpSync,
  existsSync,
  globSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, test } from 'node:test';
import { daemonPaths, waitFor } from '../helpers/daemon.ts';
import { assertNoDebugger } from '../helpers/debugger.ts';

const root = join(import.meta.dirname, '../..');
const programs = ['dattod', 'dattocli', 'dattosrv', 'fsawarebdcopy', 'in_use_sectors'];
let scratch: string;

before(() => {
  scratch = mkdtempSync(join(tmpdir(), 'build-test-'));
});
after(() => rmSync(scratch, { recursive: true, force: true }));

test('two builds of one commit are identical, in any directory', () => {
  const [one, other] = ['one', 'other place'].map((name) => {
    const folder = join(scratch, name);
    execFileSync(join(root, 'one_step_build'), ['--out', folder], { stdio: 'pipe' });
    return fingerprints(folder);
  });
  assert.deepEqual(one, other);
});

test('a closed or full standard output makes the programs fail', () => {
  for (const program of ['dattocli', 'fsawarebdcopy', 'in_use_sectors'])
    for (const where of ['>&-', '>/dev/full']) {
      const { status, stderr } = spawnSync(
        'sh',
        ['-c', `"$0" --version ${where}`, join(root, 'build', program)],
        {
          encoding: 'utf8',
        },
      );
      assert.equal(status, 1, `${program} ${where}`);
      assert.match(stderr, /could not be written to standard output: E(BADF|NOSPC)/);
    }
});

test('a copy of build/ runs without Node, sources and node_modules, through links and from any directory', () => {
  const copy = join(scratch, 'a place', 'opt');
  cpSync(join(root, 'build'), copy, { recursive: true });
  const links = join(scratch, 'bin');
  mkdirSync(links);
  const bare = join(scratch, 'bare');
  mkdirSync(bare);
  // Only sh and the tools that the launchers call.
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

test('the checksums are correct, and the bill of materials lists the content of build/', () => {
  const build = join(root, 'build');
  execFileSync('sha256sum', ['--check', '--strict', '--quiet', 'SHA256SUMS'], { cwd: build });
  const summed = readFileSync(join(build, 'SHA256SUMS'), 'utf8').trim().split('\n');
  assert.equal(summed.length, Object.keys(fingerprints(build)).length - 1, 'all files but itself');

  const text = readFileSync(join(build, 'sbom.cdx.json'), 'utf8');
  assert.doesNotMatch(text, /https?:/);
  const bill = JSON.parse(text) as {
    bomFormat: string;
    specVersion: string;
    components: {
      group?: string;
      name: string;
      version: string;
      purl: string;
      hashes: { content: string }[];
    }[];
  };
  assert.equal(`${bill.bomFormat} ${bill.specVersion}`, 'CycloneDX 1.6');
  const named = bill.components.map(
    ({ group, name, version }) => `${group === undefined ? '' : `${group}/`}${name} ${version}`,
  );
  const licences = readFileSync(join(build, 'THIRD_PARTY_LICENSES.txt'), 'utf8');
  const licensed = [...licences.matchAll(/^(@?[\w./-]+ \d+\.\d+\.\S+) \(/gm)].map(([, name]) => name);
  assert.deepEqual(named.filter((name) => !name.startsWith('node ')).sort(), licensed.sort());
  assert.ok(named.includes(`node ${process.versions.node}`));
  for (const { name, purl, hashes } of bill.components) {
    assert.match(purl, /^pkg:(npm|generic)\/[^@]+@\d/, name);
    assert.match(hashes[0]?.content ?? '', /^[0-9a-f]{64,128}$/, name);
  }
  const node = bill.components.find(({ name }) => name === 'node');
  assert.equal(
    node?.hashes[0]?.content,
    createHash('sha256')
      .update(readFileSync(join(build, 'runtime/node')))
      .digest('hex'),
  );
});

test('no program of build/ has a debugger that SIGUSR1 opens, or leaves a core dump', async (t) => {
  const paths = daemonPaths();
  const places: readonly (readonly [string, readonly string[]])[] = [
    ['dattosrv', ['--listen', '127.0.0.1:0', scratch]],
    ['dattod', ['--foreground', ...paths.arguments, '--config', paths.config]],
  ];
  writeFileSync(paths.config, '{ "job_options": { "tracker": "none" } }', { mode: 0o600 });
  t.after(() => rmSync(paths.directory, { recursive: true, force: true }));
  for (const [name, args] of places) {
    const child = spawn(join(root, 'build', name), args, { stdio: ['ignore', 'pipe', 'inherit'] });
    try {
      await (name === 'dattosrv'
        ? once(child.stdout, 'data')
        : waitFor('the socket', 10_000, () => existsSync(paths.socket)));
      assertNoDebugger(child.pid!, name);
      assert.match(readFileSync(`/proc/${child.pid!}/limits`, 'utf8'), /^Max core file size +0 /m);
    } finally {
      const ended = once(child, 'exit');
      child.kill('SIGTERM');
      assert.deepEqual(await ended, [0, null], name);
    }
  }
});

test('dattod does not treat a foreign file as its socket or its pid file', async () => {
  const file = join(scratch, 'precious');
  writeFileSync(file, 'precious text');
  const paths = daemonPaths();
  for (const option of ['--socket', '--pid-file']) {
    const args = ['--foreground', ...paths.arguments, '--config', paths.config, option, file];
    writeFileSync(paths.config, '{}', { mode: 0o600 });
    const child = spawn(join(root, 'build/dattod'), args, { stdio: ['ignore', 'ignore', 'pipe'] });
    const [said] = await Promise.all([text(child.stderr), once(child, 'exit')]);
    assert.equal(child.exitCode, 1, said);
    assert.match(said, option === '--socket' ? /a file that is not a socket/ : /is not a pid file/);
    assert.equal(readFileSync(file, 'utf8'), 'precious text');
  }
  rmSync(paths.directory, { recursive: true, force: true });
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
