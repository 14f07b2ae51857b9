import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { listenOn } from './listen.ts';

test("a socket is its owner's; what lies there already is left as it is", async (t) => {
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
  });
});
