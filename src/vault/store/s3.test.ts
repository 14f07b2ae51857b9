/**
 * Tests the S3 store against a small HTTP server that misbehaves; test/integration/vault-store-s3.test.ts has a real
 * one.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { type IncomingMessage, type ServerResponse, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { assertBuffersBelow, heldByBuffers } from '../../../test/helpers/garbage.ts';
import { MiB } from '../../base/bytes.ts';
import { AgentError } from '../../base/errors.ts';
import { collect } from '../../../test/helpers/collect.ts';
import { manualClock } from '../../../test/helpers/manual-clock.ts';
import type { ObjectStore } from './object-store.ts';
import { retryingStore } from './retry.ts';
import type { S3Settings } from './s3-client.ts';
import { openS3Store } from './s3.ts';

interface Request {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingMessage['headers'];
  readonly body: Buffer;
}

type Answer = (request: Request, response: ServerResponse, number: number) => unknown;

/** Returns a store over a server that gives these answers. */
async function serve(t: TestContext, answer: Answer, settings: S3Settings = {}) {
  const requests: Request[] = [];
  const server = createServer((message, response) => {
    void (async () => {
      const body = Buffer.concat((await message.toArray()) as Buffer[]);
      const { method = '', url = '', headers } = message;
      const request = { method, url, headers, body };
      requests.push(request);
      await answer(request, response, requests.length - 1);
    })().catch(() => response.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const store = await openS3Store(
    { kind: 's3', endpoint, bucket: 'bkt', prefix: 'pre/fix' },
    {
      accessKeyId: 'key',
      secretAccessKey: 'secret',
      idleTimeoutMs: 1_000,
      connectTimeoutMs: 1_000,
      ...settings,
    },
  );
  t.after(async () => {
    await store.close();
    server.closeAllConnections();
    server.close();
  });
  return { store, requests, endpoint };
}

function error(response: ServerResponse, status: number, code = '', more = ''): void {
  response.writeHead(status, { 'content-type': 'application/xml' });
  response.end(
    code === '' ? '' : `<?xml version="1.0"?><Error><Code>${code}</Code><Message></Message>${more}</Error>`,
  );
}

function ok(response: ServerResponse, body = '', headers: Record<string, string> = {}): void {
  response.writeHead(200, { 'content-length': String(Buffer.byteLength(body)), ...headers });
  response.end(body);
}

const all = (store: ObjectStore): readonly [string, () => Promise<unknown>][] => [
  ['put', () => store.put('k', Buffer.from('x'))],
  ['get', () => store.get('k')],
  ['head', () => store.head('k')],
  ['list', () => collect(store.list(''))],
  ['delete', () => store.delete('k')],
];

test('sends the given data with its MD5, and without checksums that only AWS knows', async (t) => {
  const { store, requests } = await serve(t, (_, response) => ok(response, '', { etag: '"x"' }));
  const parts = [Buffer.alloc(700_000, 1), Buffer.alloc(0), Buffer.alloc(5, 2)];
  await store.put('packs/ab/1', parts);
  await store.put('empty', []);
  const [put, empty] = requests;
  assert.equal(put?.method, 'PUT');
  assert.match(put.url, /^\/bkt\/pre\/fix\/packs\/ab\/1(\?|$)/);
  assert.deepEqual(put.body, Buffer.concat(parts));
  assert.equal(put.headers['content-length'], '700005');
  assert.equal(put.headers['content-md5'], createHash('md5').update(put.body).digest('base64'));
  assert.match(put.headers.authorization ?? '', /SignedHeaders=[^,]*content-md5/);
  for (const { headers } of requests) {
    assert.deepEqual(
      Object.keys(headers).filter((name) => /^x-amz-(checksum|sdk-checksum|trailer)/.test(name)),
      [],
    );
    assert.equal(headers['transfer-encoding'], undefined);
    assert.equal(headers.expect, undefined);
  }
  assert.equal(empty?.headers['content-length'], '0');
});

test('asks the server not to replace an object that must be new, and checks first', async (t) => {
  const objects = new Map<string, Buffer>();
  let faster: Buffer | undefined;
  let answers: 'condition' | 'passes over it' | 'refuses it' = 'condition';
  const { store, requests } = await serve(t, ({ method, url, body, headers }, response) => {
    const key = url.replace(/\?.*/, '');
    const found = objects.get(key);
    const condition = headers['if-none-match'];
    if (method === 'HEAD' && faster !== undefined) objects.set(key, faster);
    faster = undefined;
    if (condition !== undefined && answers === 'refuses it') {
      error(response, 501, 'NotImplemented');
      return;
    }
    if (method === 'PUT' && condition === '*' && answers === 'condition' && found !== undefined) {
      error(response, 412, 'PreconditionFailed');
      return;
    }
    if (method === 'PUT') objects.set(key, body);
    else if (found === undefined && /\/fix\//.test(key)) {
      error(response, 404, method === 'HEAD' ? '' : 'NoSuchKey');
      return;
    }
    ok(response, method === 'GET' ? (found?.toString() ?? '') : '', { etag: '"x"' });
  });
  const conditions = (): unknown[] =>
    requests.filter(({ method }) => method === 'PUT').map(({ headers }) => headers['if-none-match']);
  await store.put('a', Buffer.from('old'));
  await store.put('a', Buffer.from('new'));
  await store.put('b', Buffer.from('first'), { isNew: true });
  assert.deepEqual(conditions(), [undefined, undefined, '*']);
  for (answers of ['condition', 'passes over it', 'refuses it'] as const) {
    await store.put('b', Buffer.from('first'), { isNew: true });
    await assert.rejects(store.put('b', Buffer.from('other'), { isNew: true }), {
      code: 'VAULT_OBJECT_EXISTS',
    });
    assert.equal(objects.get('/bkt/pre/fix/b')?.toString(), 'first', answers);
  }
  // Another put came between the check and this put; the condition stops it.
  answers = 'condition';
  faster = Buffer.from('theirs');
  await assert.rejects(store.put('c', Buffer.from('mine'), { isNew: true }), { code: 'VAULT_OBJECT_EXISTS' });
  // If a server refuses the condition, the request is repeated without it. Later requests do not have it.
  answers = 'refuses it';
  await store.put('d', Buffer.from('x'), { isNew: true });
  await store.put('e', Buffer.from('x'), { isNew: true });
  assert.deepEqual(conditions().slice(-3), ['*', undefined, undefined]);
});

test('only an answer about the condition disables it', async (t) => {
  let refusal: [status: number, code: string] | undefined;
  const { store, requests } = await serve(t, ({ method, url }, response) => {
    if (method === 'HEAD' && url.includes('/fix/')) error(response, 404);
    else if (method === 'PUT' && refusal !== undefined) error(response, ...refusal);
    else ok(response, '', { etag: '"x"' });
  });
  const put = async (): Promise<unknown[]> => {
    requests.length = 0;
    await store.put('a', Buffer.from('x'), { isNew: true }).catch(() => undefined);
    return requests.filter(({ method }) => method === 'PUT').map(({ headers }) => headers['if-none-match']);
  };
  for (const code of ['RequestTimeout', 'ExpiredToken', 'BadDigest', 'IncompleteBody', '']) {
    refusal = [400, code];
    assert.deepEqual(await put(), ['*'], code);
  }
  refusal = undefined;
  assert.deepEqual(await put(), ['*']);
  for (const each of [
    [501, 'NotImplemented'],
    [400, 'InvalidArgument'],
  ] as const) {
    refusal = [...each];
    // The server refuses both, so the condition stays enabled.
    assert.deepEqual(await put(), ['*', undefined]);
  }
});

test('uploads large objects in parts, and aborts the upload if one fails', async (t) => {
  let fail = false;
  const answer: Answer = ({ method, url }, response) => {
    if (method === 'POST' && /[?&]uploads/.test(url)) {
      ok(response, '<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>');
      return;
    }
    if (method === 'POST') {
      ok(response, '<CompleteMultipartUploadResult></CompleteMultipartUploadResult>');
      return;
    }
    if (method === 'PUT' && fail && url.includes('partNumber=2')) {
      error(response, 503, 'SlowDown');
      return;
    }
    ok(response, '', { etag: `"${url}"` });
  };
  const { store, requests } = await serve(t, answer, { multipartThreshold: 12 * MiB, partSize: 5 * MiB });
  const data = [Buffer.alloc(3 * MiB, 1), Buffer.alloc(10 * MiB, 2), Buffer.alloc(1, 3)];
  await store.put('large', data);
  const parts = requests.filter(({ method }) => method === 'PUT');
  const number = ({ url }: Request) => Number(/partNumber=(\d+)/.exec(url)?.[1]);
  parts.sort((a, b) => number(a) - number(b));
  assert.deepEqual(parts.map(number), [1, 2, 3]);
  assert.ok(Buffer.concat(parts.map(({ body }) => body)).equals(Buffer.concat(data)));
  for (const { headers, body } of parts)
    assert.equal(headers['content-md5'], createHash('md5').update(body).digest('base64'));
  assert.match(requests.at(-1)?.body.toString() ?? '', /<PartNumber>3<\/PartNumber>/);

  fail = true;
  requests.length = 0;
  await assert.rejects(store.put('large', data), { code: 'VAULT_UNREACHABLE', message: /503 SlowDown/ });
  assert.equal(requests.at(-1)?.method, 'DELETE');
  assert.match(requests.at(-1)?.url ?? '', /uploadId=u1/);
});

test('an upload fails if its completion answers 200 with an error in the body', async (t) => {
  const { store } = await serve(
    t,
    ({ method, url }, response) =>
      method === 'POST' && url.includes('uploadId')
        ? ok(response, '<?xml version="1.0"?><Error><Code>InternalError</Code></Error>')
        : ok(response, '<R><UploadId>u1</UploadId></R>', { etag: '"x"' }),
    { multipartThreshold: 1000, partSize: 5 * MiB },
  );
  await assert.rejects(store.put('large', Buffer.alloc(2000)), { code: /VAULT_(UNREACHABLE|STORE_ERROR)/ });
});

test('temporary errors are repeated, others are not', async (t) => {
  const cases: readonly [status: number, code: string, expected: string, message: RegExp][] = [
    [500, 'InternalError', 'VAULT_UNREACHABLE', /500/],
    [500, '', 'VAULT_UNREACHABLE', /500/],
    [502, '', 'VAULT_UNREACHABLE', /502/],
    [503, 'SlowDown', 'VAULT_UNREACHABLE', /503/],
    [503, '', 'VAULT_UNREACHABLE', /503/],
    [429, 'TooManyRequests', 'VAULT_UNREACHABLE', /429/],
    [507, 'InsufficientStorage', 'VAULT_FULL', /room/],
    [403, 'SignatureDoesNotMatch', 'VAULT_DENIED', /secret key/],
    [403, 'InvalidAccessKeyId', 'VAULT_DENIED', /access key/],
    [403, 'AccessDenied', 'VAULT_DENIED', /not allowed/],
    [403, 'QuotaExceeded', 'VAULT_FULL', /quota/],
    [404, 'NoSuchBucket', 'VAULT_NOT_FOUND', /no such bucket/],
    [400, 'BadDigest', 'VAULT_UNREACHABLE', /changed in transit/],
    [400, 'AuthorizationHeaderMalformed', 'VAULT_STORE_ERROR', /region/],
    [405, 'MethodNotAllowed', 'VAULT_READ_ONLY', /405/],
    [418, 'Teapot', 'VAULT_STORE_ERROR', /418 Teapot/],
  ];
  let now = cases[0]!;
  const { store, requests } = await serve(t, (_, response) => error(response, now[0], now[1]));
  for (now of cases)
    for (const [what, request] of all(store)) {
      requests.length = 0;
      // A HEAD has no body, only a status.
      const expected = what === 'head' ? {} : { code: now[2], message: now[3] };
      await assert.rejects(
        request(),
        (thrown: { code: string; message: string }) => {
          assert.match(thrown.message, /^s3:\/\/127\.0\.0\.1:\d+\/bkt\/pre\/fix: /, what);
          return Object.entries(expected).every(([key, value]) =>
            value instanceof RegExp ? value.test(thrown.message) : thrown[key as 'code'] === value,
          );
        },
        `${what} ${now[0]} ${now[1]}`,
      );
      assert.equal(
        requests.length,
        what === 'head' && now[0] === 404 ? 2 : 1,
        `${what}: the SDK repeats nothing`,
      );
    }
});

test('a wrong clock is corrected from the server’s answer', async (t) => {
  const { store, requests } = await serve(t, (_, response, number) =>
    number === 0 ? error(response, 403, 'RequestTimeTooSkewed') : ok(response, 'x'),
  );
  assert.equal((await store.get('k')).toString(), 'x');
  assert.equal(requests.length, 2);
});

test('a clock that stays wrong is denied', async (t) => {
  const { store } = await serve(t, (_, response) => error(response, 403, 'RequestTimeTooSkewed'));
  await assert.rejects(store.get('k'), { code: 'VAULT_DENIED', message: /clocks/ });
});

test('silence ends by our own time-out', async (t) => {
  const { store } = await serve(t, () => undefined, { idleTimeoutMs: 400 });
  await Promise.all(
    all(store).map(([what, request]) =>
      assert.rejects(request(), { code: 'VAULT_UNREACHABLE', message: /stopped answering/ }, what),
    ),
  );
});

test('an answer that stops in the middle times out, and a slow one does not', async (t) => {
  const answer: Answer = async ({ url }, response) => {
    response.writeHead(200, { 'content-length': '8' });
    response.write('12');
    if (url.includes('stops')) return;
    for (const rest of ['3', '4', '5', '6', '7', '8']) {
      await new Promise((resolve) => setTimeout(resolve, 150));
      response.write(rest);
    }
    response.end();
  };
  const { store } = await serve(t, answer, { idleTimeoutMs: 700 });
  const slow = store.get('slow');
  await assert.rejects(store.get('stops'), { code: 'VAULT_UNREACHABLE' });
  assert.equal((await slow).toString(), '12345678');
});

test('single bytes now and then are not an answer, in the header or in the body', async (t) => {
  const { store } = await serve(
    t,
    ({ url }, response) => {
      const socket = response.socket!;
      socket.write(url.includes('header') ? 'HTTP/1.1 200 OK\r\nx: ' : 'HTTP/1.1 200 OK\r\n\r\n');
      const timer = setInterval(() => (socket.destroyed ? clearInterval(timer) : socket.write('x')), 20);
    },
    { idleTimeoutMs: 100 },
  );
  for (const key of ['header', 'body'])
    await assert.rejects(store.get(key), { code: 'VAULT_UNREACHABLE', message: /stopped answering/ });
  await assert.rejects(collect(store.list('')), { code: 'VAULT_UNREACHABLE' });
});

test('an endless body is ended for every request', async (t) => {
  let sent = 0;
  const { store } = await serve(t, ({ url }, response) => {
    const chunk = Buffer.alloc(64 * 1024, url.includes('list-type') ? 'x' : 'y');
    response.writeHead(url.includes('error') ? 500 : 200, { 'content-type': 'application/xml' });
    const go = (): void => {
      while (!response.destroyed && response.write(chunk)) sent += chunk.length;
      sent += chunk.length;
      if (!response.destroyed) response.once('drain', go);
    };
    go();
  });
  const before = heldByBuffers();
  await assert.rejects(store.get('whole'), { code: 'VAULT_STORE_ERROR', message: /longer than 80/ });
  for (const [what, ask] of [
    ['list', () => collect(store.list(''))],
    ['error', () => store.get('error')],
    ['delete', () => store.delete('k')],
  ] as const) {
    sent = 0;
    await assert.rejects(ask(), { code: 'VAULT_STORE_ERROR' }, what);
    assert.ok(sent < 32 * MiB, `${what}: ${sent} bytes`);
  }
  await assertBuffersBelow(before + 256 * MiB);
});

test('an answer that is longer than requested is refused before memory is allocated', async (t) => {
  const { store } = await serve(t, ({ headers }, response) => {
    response.writeHead(headers.range === undefined ? 200 : 206, {
      'content-length': String(2 ** 40),
      ...(headers.range === undefined ? {} : { 'content-range': `bytes 0-9/${2 ** 40}` }),
    });
    response.write('x');
  });
  await assert.rejects(store.get('k', { offset: 0, length: 10 }), { code: 'VAULT_STORE_ERROR' });
  await assert.rejects(store.get('k', { suffix: 10 }), { code: 'VAULT_STORE_ERROR' });
  await assert.rejects(store.get('k'), { code: 'VAULT_STORE_ERROR' });
});

for (const [what, page] of [
  ['the same page again', () => ({ keys: ['a', 'b'], token: 'next' })],
  ['earlier keys again', (number: number) => ({ keys: [`${9 - (number % 9)}`], token: `t${number}` })],
  ['empty pages', (number: number) => ({ keys: [], token: `t${number}` })],
  ['a circle of empty pages', (number: number) => ({ keys: [], token: `t${number % 3}` })],
  ['keys of another place', () => ({ keys: ['../../other'], token: 't', place: 'other/' })],
] as const)
  test(`a list that gives ${what} without end breaks off`, async (t) => {
    const { store, requests } = await serve(t, (_request, response, number) => {
      const {
        keys,
        token,
        place = 'pre/fix/',
      } = page(number) as {
        keys: readonly string[];
        token: string;
        place?: string;
      };
      const contents = keys.map((key) => `<Contents><Key>${place}${key}</Key><Size>1</Size></Contents>`);
      ok(
        response,
        `<?xml version="1.0"?><ListBucketResult><IsTruncated>true</IsTruncated>${contents.join('')}` +
          `<NextContinuationToken>${token}</NextContinuationToken></ListBucketResult>`,
      );
    });
    await assert.rejects(collect(store.list('')), { code: 'VAULT_STORE_ERROR' });
    assert.ok(requests.length < 120, `${requests.length} pages`);
  });

test('any answer gives either an error of ours or the requested data', async (t) => {
  let answer: { status: number; body: Uint8Array; length: number | undefined; cut: boolean };
  const { store } = await serve(
    t,
    (_request, response) => {
      const { status, body, length, cut } = answer;
      response.writeHead(status, length === undefined ? {} : { 'content-length': String(length) });
      response.write(body);
      if (cut) response.destroy();
      else response.end();
    },
    { idleTimeoutMs: 60 },
  );
  const xml = fc
    .array(
      fc.constantFrom(
        ...['<ListBucketResult>', '</ListBucketResult>', '<IsTruncated>', 'true', 'false', '</IsTruncated>'],
        ...[
          '<Contents>',
          '<Key>',
          'pre/fix/a',
          '%zz',
          '</Key>',
          '<Size>',
          '-1',
          '1e99',
          '</Size>',
          '</Contents>',
        ],
        ...[
          '<?xml version="1.0"?>',
          '<!DOCTYPE a [<!ENTITY b "cc">]>',
          '&b;',
          '<Error>',
          '<Code>',
          'SlowDown',
          '</Code>',
        ],
      ),
      { maxLength: 12 },
    )
    .map((parts) => Buffer.from(parts.join('')));
  await fc.assert(
    fc.asyncProperty(
      fc.record({
        status: fc.constantFrom(200, 206, 204, 301, 400, 403, 404, 412, 416, 500, 503, 599),
        body: fc.oneof(xml, fc.uint8Array({ maxLength: 50 })),
        length: fc.option(fc.nat(100), { nil: undefined }),
        cut: fc.boolean(),
      }),
      fc.constantFrom(...all(store)),
      async (given, [what, ask]) => {
        answer = given;
        try {
          await ask();
        } catch (error) {
          assert.ok(error instanceof AgentError, `${what}: ${String(error)}`);
          assert.match(error.code, /^VAULT_/);
        }
      },
    ),
    { numRuns: Number(process.env['HOSTILE_RUNS'] ?? 150) },
  );
});

test('a connection that closes before or during an answer is detected', async (t) => {
  const { store } = await serve(t, ({ url }, response) => {
    if (url.includes('middle')) {
      response.writeHead(200, { 'content-length': '8' });
      response.write('1234', () => response.destroy());
    } else response.destroy();
  });
  await assert.rejects(store.get('middle'), { code: 'VAULT_UNREACHABLE' });
  await assert.rejects(store.get('before'), { code: 'VAULT_UNREACHABLE' });
  await assert.rejects(store.put('before', Buffer.from('x')), { code: 'VAULT_UNREACHABLE' });
});

test('a closed port is unreachable', async (t) => {
  const { store, endpoint } = await serve(t, (_, response) => ok(response));
  const port = Number(new URL(endpoint).port);
  assert.ok(port > 0);
  const other = await openS3Store(
    { kind: 's3', endpoint: 'http://127.0.0.1:1', bucket: 'bkt', prefix: '' },
    { accessKeyId: 'k', secretAccessKey: 's' },
  );
  await assert.rejects(other.get('k'), { code: 'VAULT_UNREACHABLE', message: /no server listens/ });
  await other.close();
  await store.delete('k');
});

test('an answer that is not from an S3 server is reported', async (t) => {
  const html = '<!DOCTYPE html><html><body>Welcome to nginx!</body></html>';
  const { store } = await serve(t, (_, response) => ok(response, html, { 'content-type': 'text/html' }));
  const none = { code: 'VAULT_STORE_ERROR', message: /not from an S3 server/ };
  await assert.rejects(collect(store.list('')), none);
  await assert.rejects(store.put('k', Buffer.from('x')), none);
  await assert.rejects(store.put('k', Buffer.alloc(40 * MiB)), { code: 'VAULT_STORE_ERROR' });
});

test('takes the requested range from a server that ignores ranges', async (t) => {
  const { store } = await serve(t, (_, response) => ok(response, '0123456789'));
  assert.equal((await store.get('k', { offset: 2, length: 3 })).toString(), '234');
  assert.equal((await store.get('k', { suffix: 3 })).toString(), '789');
});

test('reads all pages, and skips names that are not keys', async (t) => {
  const page = (keys: readonly string[], next?: string): string =>
    `<ListBucketResult><IsTruncated>${next === undefined ? 'false' : 'true'}</IsTruncated>${
      next === undefined ? '' : `<NextContinuationToken>${next}</NextContinuationToken>`
    }${keys.map((key) => `<Contents><Key>pre%2Ffix%2F${key}</Key><Size>3</Size><LastModified>2024-01-01T00:00:00.000Z</LastModified></Contents>`).join('')}</ListBucketResult>`;
  const { store, requests } = await serve(t, ({ url }, response) =>
    ok(
      response,
      url.includes('continuation-token=t1') ? page(['c', 'd%2Fe']) : page(['a', 'Foreign+Name%26'], 't1'),
    ),
  );
  assert.deepEqual(
    (await collect(store.list('', { after: 'Z' }))).map(({ key }) => key),
    ['a', 'c', 'd/e'],
  );
  assert.match(requests[0]?.url ?? '', /prefix=pre%2Ffix%2F(&|$)/);
  assert.match(requests[0]?.url ?? '', /start-after=pre%2Ffix%2FZ/);
  assert.deepEqual(await collect(store.foreign()), ['Foreign Name&']);
});

test('retries survive 500, 503, resets and silence', async (t) => {
  const { store } = await serve(
    t,
    (_, response, number) => {
      if (number === 0) error(response, 500);
      else if (number === 1) error(response, 503, 'SlowDown');
      else if (number === 2) response.destroy();
      // The fourth request gets no answer.
      else if (number > 3) ok(response, 'through');
    },
    { idleTimeoutMs: 300 },
  );
  const clock = manualClock();
  assert.equal((await retryingStore(store, {}, { clock }).get('k')).toString(), 'through');
  assert.equal(clock.sleeps.length, 4);
});

test('a signal ends a running request', async (t) => {
  const abort = new AbortController();
  const { store } = await serve(t, () => abort.abort(new Error('enough')), { idleTimeoutMs: 60_000 });
  await assert.rejects(store.get('k', { signal: abort.signal }), /enough/);
});

test('refuses plain http to other machines, and incomplete credentials', async () => {
  const far = { kind: 's3', endpoint: 'http://192.0.2.1', bucket: 'bkt', prefix: '' } as const;
  await assert.rejects(openS3Store(far), { code: 'BAD_TARGET', message: /plain http/ });
  await (await openS3Store(far, { allowPlainHttp: true })).close();
  const near = { ...far, endpoint: 'https://127.0.0.1' };
  await assert.rejects(openS3Store(near, { accessKeyId: 'x' }), { code: 'BAD_USAGE' });
  await assert.rejects(openS3Store(near, { caFile: '/none' }), { code: 'FILE_ERROR' });
  await assert.rejects(openS3Store(near, { caFile: import.meta.filename }), {
    code: 'FILE_ERROR',
    message: /PEM/,
  });
});
