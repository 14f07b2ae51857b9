/** The API against arbitrary requests: never a 500, never a hang, and afterwards it works as before. */
import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { Client } from '../cli/client.ts';
import { type FakeDaemon, startFakeDaemon } from '../../test/helpers/fake-daemon.ts';
import type { HealthDocument } from '../api/info.ts';

// For a longer run: API_FUZZ_RUNS=20000 scripts/node --test src/daemon/hostile-request.test.ts
const runs = Number(process.env['API_FUZZ_RUNS'] ?? 200);
const seed = Number(process.env['API_FUZZ_SEED'] ?? 9);

let server: FakeDaemon;
before(async () => {
  server = await startFakeDaemon();
});
after(() => server.stop());

/** Sends the bytes, ends the connection, and resolves with everything that came back. */
function say(bytes: Buffer, ms = 10_000): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(server.socket);
    let answer = '';
    const timer = setTimeout(() => {
      socket.destroy();
      reject(new Error(`no end after ${ms} ms: ${answer}`));
    }, ms);
    socket.on('data', (chunk: Buffer) => (answer += chunk.toString('latin1')));
    socket.on('error', () => undefined);
    socket.once('close', () => {
      clearTimeout(timer);
      resolve(answer);
    });
    socket.end(bytes);
  });
}

const uuid = fc.oneof(
  fc.uuid(),
  fc.constantFrom('..', '%2e%2e%2f%2e%2e', '../../etc/passwd', '%00', '-', 'a'.repeat(5000), '%', '%ff'),
  fc.string({ maxLength: 50 }).map(encodeURIComponent),
);
const path = fc.oneof(
  fc.constantFrom('/v1/jobs', '/v1/tracking/stop', '/v1/health', '/v1/devices', '/v1/chains', '/v1/tracking'),
  fc.constantFrom(
    '/',
    '//',
    '/v1',
    '/v2/jobs',
    '/v1/jobs?limit=-1',
    '/v1/jobs?limit=1&limit=2',
    '/v1/info/basic?x=1',
  ),
  fc
    .tuple(uuid, fc.constantFrom('', '/stop', '/pause', '/resume', '/more'))
    .map(([id, what]) => `/v1/jobs/${id}${what}`),
  fc.webPath({ size: 'small' }),
);
const method = fc.constantFrom('GET', 'POST', 'DELETE', 'PUT', 'PATCH', 'HEAD', 'OPTIONS', 'BREW');

/** Valid documents with fields changed, added and left out. None of their devices exists. */
const startDocument = fc.record(
  {
    kind: fc.oneof(fc.constantFrom('full', 'incremental', 'differential', 'verify'), fc.jsonValue()),
    devices: fc.oneof(
      fc.array(fc.record({ device: fc.string(), target: fc.oneof(fc.webUrl(), fc.string()) }), {
        maxLength: 3,
      }),
      fc.jsonValue(),
    ),
    options: fc.oneof(
      fc.dictionary(
        fc.constantFrom('rate', 'verify', 'max_freeze_ms', 'pre_freeze_hook', '__proto__'),
        fc.jsonValue(),
      ),
      fc.jsonValue(),
    ),
    __proto__: fc.jsonValue(),
    more: fc.jsonValue(),
  },
  { requiredKeys: [] },
);
const body = fc.oneof(
  startDocument.map((document) => Buffer.from(JSON.stringify(document))),
  fc.json().map((text) => Buffer.from(text)),
  fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
  fc.constantFrom(
    Buffer.alloc(0),
    Buffer.from('['.repeat(100_000)),
    Buffer.from(`{"kind":"full","devices":[${'{},'.repeat(20_000)}{}]}`),
    Buffer.alloc(400_000, '"'),
  ),
);
const request = fc
  .record({
    method,
    path,
    body,
    more: fc.oneof({ weight: 6, arbitrary: fc.constant(0) }, fc.integer({ min: -5, max: 9000 })),
  })
  .map(({ method: verb, path: where, body: content, more }) =>
    Buffer.concat([
      Buffer.from(
        `${verb} ${where} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n` +
          `Content-Length: ${Math.max(0, content.length + more)}\r\n\r\n`,
        'latin1',
      ),
      content,
    ]),
  );
const chunked = body.map((content) =>
  Buffer.concat([
    Buffer.from(
      'POST /v1/jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n',
    ),
    content,
  ]),
);
const anything = fc.oneof(
  { weight: 8, arbitrary: request },
  chunked,
  fc.uint8Array({ maxLength: 500 }).map((bytes) => Buffer.from(bytes)),
);

test('every request gets an answer, and no answer is a failure of the daemon', async (t) => {
  const client = new Client(server.socket);
  const before = process.memoryUsage().rss;
  let answered = 0;
  await fc.assert(
    fc.asyncProperty(anything, async (bytes) => {
      const answer = await say(bytes);
      const status = /^HTTP\/1\.1 (\d+)/.exec(answer)?.[1];
      if (status !== undefined) answered++;
      assert.ok(status === undefined || Number(status) < 500, answer.slice(0, 600));
      assert.doesNotMatch(answer, /"INTERNAL"/);
    }),
    { numRuns: runs, seed },
  );
  assert.ok(answered > runs / 3, `${answered} of ${runs} were answered`);
  assert.equal((await client.get<HealthDocument>('/v1/health')).status, 'ok');
  assert.equal((await client.get<HealthDocument>('/v1/health')).running_jobs, 0);
  const grown = (process.memoryUsage().rss - before) / 2 ** 20;
  t.diagnostic(`${answered} answers, ${grown.toFixed(0)} MiB more`);
  assert.ok(grown < 300, `${grown} MiB more`);
});

test('clients that send half a request delay no other client', async () => {
  const slow = Array.from({ length: 100 }, () => {
    const socket = connect(server.socket);
    socket.on('error', () => undefined);
    socket.write('POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n{');
    return socket;
  });
  assert.equal((await new Client(server.socket).get<HealthDocument>('/v1/health')).status, 'ok');
  for (const socket of slow) socket.destroy();
});
