import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { lstatSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { listenOn } from './listen.ts';

test('only its owner can use a socket; an existing file at the path is left unchanged', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'listen-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const path = join(directory, 'socket');
  const first = createServer();
  await listenOn(first, { path });
  t.after(() => first.close());
  assert.equal(statSync(path).mode & 0o777, 0o600);
  await assert.rejects(listenOn(createServer(), { path }), { code: 'FILE_ERROR', message: /EADDRINUSE/ });

  const file = join(directory, 'file');
  writeFileSync(file, 'somebody needs this', { mode: 0o644 });
  await assert.rejects(listenOn(createServer(), { path: file }), { code: 'FILE_EXISTS' });
  assert.equal(statSync(file).mode & 0o777, 0o644);
  await assert.rejects(listenOn(createServer(), { path: join(directory, 'no', 'directory') }), {
    code: 'FILE_ERROR',
    message: /ENOENT/,
  });
});

test('a socket that a killed server left behind is replaced; a link is not followed', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'listen-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const path = join(directory, 'socket');
  const script = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 9))`;
  spawnSync(process.execPath, ['-e', script]);
  assert.ok(lstatSync(path).isSocket());
  const link = join(directory, 'link');
  symlinkSync(path, link);
  await assert.rejects(listenOn(createServer(), { path: link }), { code: 'FILE_EXISTS' });
  assert.ok(lstatSync(path).isSocket() && lstatSync(link).isSymbolicLink());
  const server = createServer();
  await listenOn(server, { path });
  server.close();
});
