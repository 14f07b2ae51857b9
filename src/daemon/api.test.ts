/** The API over a real Unix socket, with an engine that copies nothing. */
import assert from 'node:assert/strict';
import { readFileSync, rmSync, statSync } from 'node:fs';
import { request } from 'node:http';
import { after, before, test } from 'node:test';
import { Client } from '../cli/client.ts';
import { waitFor } from '../../test/helpers/daemon.ts';
import { fakeDevices, shutDeaf } from '../../test/helpers/fake-engine.ts';
import { assertFits, type OpenApi } from '../../test/helpers/answers.ts';
import { type FakeDaemon, startFakeDaemon } from '../../test/helpers/fake-daemon.ts';
import type { DeviceDocument } from '../api/devices.ts';
import type { HealthDocument } from '../api/info.ts';
import type { JobStatus } from '../api/job-status.ts';
import type { StartDocument } from '../api/start.ts';
import type { TrackingDocument, TrackingStoppedDocument } from '../api/tracking.ts';

let server: FakeDaemon;
let client: Client;
before(async () => {
  server = await startFakeDaemon();
  client = new Client(server.socket);
});
after(() => server.stop());

const uuid1 = '11111111-1111-4111-8111-111111111111';

function full(device: string, how: string, host = 'h'): StartDocument {
  return { kind: 'full', devices: [{ device, target: `nbd://${host}/${how}` }] };
}

async function ask(method: string, path: string, body?: string): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    request({ socketPath: server.socket, method, path }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
      response.once('end', () => resolve({ status: response.statusCode ?? 0, text }));
    })
      .once('error', reject)
      .end(body);
  });
}

async function toEnd(uuid: string): Promise<JobStatus[]> {
  const seen: JobStatus[] = [];
  for await (const status of client.events(`/v1/jobs/${uuid}/events`)) seen.push(status);
  return seen;
}

test('the socket is for root alone', () => {
  assert.equal((statSync(server.socket).mode & 0o777).toString(8), '600');
});

test('health, devices and info', async () => {
  assert.equal((await client.get<HealthDocument>('/v1/health')).pid, process.pid);
  const devices = await client.get<DeviceDocument[]>('/v1/devices');
  assert.deepEqual(
    devices.map((device) => device.path),
    fakeDevices.map((device) => device.path),
  );
  assert.ok('block_devices' in (await client.get<object>('/v1/info/complete')));
  assert.ok('hostname' in (await client.get<object>('/v1/info/basic')));
});

test('every answer has the fields of its schema, and no other', async () => {
  const api = await client.get<OpenApi>('/openapi.json');
  const { schemas } = api.components;
  const { uuid } = await client.post<JobStatus>('/v1/jobs', full('/dev/fda1', 'done', 'answers'));
  const seen = await toEnd(uuid);
  const paths = Object.keys(api.paths).filter((path) => !path.includes('events'));
  for (const path of paths) {
    const answer = api.paths[path]!['get']?.responses['200']?.content?.['application/json'];
    if (answer === undefined) continue;
    assertFits(schemas, answer.schema, await client.get(path.replace('{uuid}', uuid)), path);
  }
  for (const status of seen) assertFits(schemas, schemas['JobStatus']!, status, 'an event');
  const refused = JSON.parse((await ask('POST', '/v1/jobs', '{}')).text) as unknown;
  assertFits(schemas, schemas['Error']!, refused, 'an error');
  const stopped = await client.post('/v1/tracking/stop');
  assertFits(schemas, schemas['TrackingStopped']!, stopped, 'the answer of stop');
});

test('the OpenAPI document that is served is the one in docs/', async () => {
  const documented = JSON.parse(
    readFileSync(new URL('../../docs/openapi.json', import.meta.url), 'utf8'),
  ) as { info: object };
  const served = await client.get<{ info: object }>('/openapi.json');
  assert.deepEqual({ ...served, info: undefined }, { ...documented, info: undefined });
});

test('a job is started, followed to its end, and found in the history by a prefix of its UUID', async () => {
  const answer = await ask('POST', '/v1/jobs', JSON.stringify(full(uuid1, 'done')));
  assert.equal(answer.status, 201);
  const started = JSON.parse(answer.text) as JobStatus;
  assert.equal(started.state, 'IN_PROGRESS');
  const seen = await toEnd(started.uuid);
  assert.equal(seen.at(-1)?.state, 'SUCCEEDED');
  assert.ok(seen.slice(0, -1).every(({ state }) => state === 'IN_PROGRESS'));
  assert.deepEqual(await client.get(`/v1/jobs/${started.uuid.slice(0, 8)}`), seen.at(-1));
  assert.equal((await client.get<JobStatus[]>('/v1/jobs?limit=1'))[0]?.uuid, started.uuid);
  // The events of a job that has ended consist of its final status.
  assert.deepEqual(await toEnd(started.uuid), [seen.at(-1)]);
});

test('a job can be paused, resumed and stopped, but not after it has ended', async () => {
  const { uuid } = await client.post<JobStatus>('/v1/jobs', full('/dev/fda1', 'forever'));
  assert.equal((await client.post<JobStatus>(`/v1/jobs/${uuid}/pause`)).paused, true);
  assert.equal((await client.get<JobStatus>(`/v1/jobs/${uuid}`)).paused, true);
  assert.equal((await client.post<JobStatus>(`/v1/jobs/${uuid}/resume`)).paused, false);
  const stopped = await client.post<JobStatus>(`/v1/jobs/${uuid}/stop`);
  assert.deepEqual([stopped.state, stopped.error?.code], ['CANCELLED', 'CANCELLED']);
  for (const verb of ['stop', 'pause', 'resume'])
    await assert.rejects(client.post(`/v1/jobs/${uuid}/${verb}`), {
      code: 'JOB_NOT_RUNNING',
      message: 'Job not running',
    });
  const gone = await ask('DELETE', `/v1/jobs/${uuid}`);
  assert.equal(gone.status, 409);
});

test('a device, a disk with its partition, and a target are each in one running job at most', async () => {
  const first = await client.post<JobStatus>('/v1/jobs', full('/dev/fda1', 'forever'));
  for (const [device, how] of [
    [uuid1, 'done'],
    ['/dev/fda', 'done'],
  ] as const)
    await assert.rejects(client.post('/v1/jobs', full(device, how, 'other')), {
      code: 'DEVICE_BUSY',
      message: /^Device is already being backed up: /,
    });
  await assert.rejects(client.post('/v1/jobs', full('/dev/fda2', 'forever')), {
    code: 'DEVICE_BUSY',
    message: 'The target nbd://h/forever is being written by another job',
  });
  // Another partition of the same disk is disjoint.
  const second = await client.post<JobStatus>('/v1/jobs', full('/dev/fda2', 'done'));
  assert.equal((await toEnd(second.uuid)).at(-1)?.state, 'SUCCEEDED');
  await client.post(`/v1/jobs/${first.uuid}/stop`);
  const again = await client.post<JobStatus>('/v1/jobs', full('/dev/fda', 'done'));
  await toEnd(again.uuid);
});

test('tracking is not stopped during a job; after the job it is stopped by the name of the device', async () => {
  const { uuid } = await client.post<JobStatus>('/v1/jobs', full('/dev/fda2', 'forever', 'tracked'));
  const tracked = async () =>
    (await client.get<TrackingDocument>('/v1/tracking')).devices
      .filter(({ tracker }) => tracker !== null)
      .map(({ device }) => device);
  assert.ok((await tracked()).includes('/dev/fda2'));
  const busy = { code: 'DEVICE_BUSY', message: new RegExp(uuid) };
  await assert.rejects(client.post('/v1/tracking/stop', { device: '/dev/fda2' }), busy);
  await assert.rejects(client.post('/v1/tracking/stop'), busy);
  await assert.rejects(client.post('/v1/tracking/stop', { devices: [] }), { code: 'BAD_USAGE' });
  await client.post(`/v1/jobs/${uuid}/stop`);
  const { stopped } = await client.post<TrackingStoppedDocument>('/v1/tracking/stop', {
    device: '/dev/fda2',
  });
  assert.deepEqual(stopped, ['/dev/fda2']);
  assert.ok(!(await tracked()).includes('/dev/fda2'));
  await client.post('/v1/tracking/stop');
  assert.deepEqual(await tracked(), []);
  assert.deepEqual(await client.get('/v1/chains'), []);
});

test('if two jobs start at the same moment, one wins', async () => {
  const both = await Promise.allSettled([
    client.post<JobStatus>('/v1/jobs', full('/dev/fda1', 'slow', 'a')),
    client.post<JobStatus>('/v1/jobs', full('/dev/fda1', 'slow', 'b')),
  ]);
  const won = both.filter((each) => each.status === 'fulfilled');
  assert.equal(won.length, 1);
  assert.equal(
    (both.find((each) => each.status === 'rejected')?.reason as { code: string }).code,
    'DEVICE_BUSY',
  );
  await toEnd(won[0]!.value.uuid);
});

test('a refused start leaves no job and no claim', async () => {
  const before = await client.get<JobStatus[]>('/v1/jobs');
  await assert.rejects(client.post('/v1/jobs', full('/dev/fda1', 'unreachable')), {
    code: 'TARGET_UNREACHABLE',
  });
  await assert.rejects(client.post('/v1/jobs', full('nowhere', 'done')), { code: 'DEVICE_NOT_FOUND' });
  assert.deepEqual(await client.get('/v1/jobs'), before);
  await toEnd((await client.post<JobStatus>('/v1/jobs', full('/dev/fda1', 'done'))).uuid);
});

test('a client that hangs up before the answer gets no job', async (t) => {
  const before = await client.get<JobStatus[]>('/v1/jobs');
  const open = shutDeaf();
  t.after(open);
  const hangUp = new AbortController();
  const asked = client.post('/v1/jobs', full('/dev/fda1', 'deaf'), hangUp.signal);
  asked.catch(() => undefined);
  await preparingJob(client);
  hangUp.abort();
  await assert.rejects(asked, { name: 'AbortError' });
  // The device is free again as soon as the checks have ended.
  open();
  await untilFree('/dev/fda1');
  assert.equal((await client.get<JobStatus[]>('/v1/jobs')).length, before.length + 1);
});

test('the stream of all jobs reports each job', async () => {
  const stop = new AbortController();
  const stream = client.events('/v1/events', stop.signal);
  const seen: string[] = [];
  const reading = (async () => {
    for await (const { uuid, state } of stream) {
      seen.push(`${uuid} ${state}`);
      if (state === 'SUCCEEDED') stop.abort();
    }
  })();
  reading.catch(() => undefined);
  const { uuid } = await client.post<JobStatus>('/v1/jobs', full('/dev/fda2', 'done'));
  await assert.rejects(reading, { name: 'AbortError' });
  assert.ok(seen.includes(`${uuid} IN_PROGRESS`) && seen.includes(`${uuid} SUCCEEDED`), seen.join(', '));
});

test('bad requests are refused with an error code and a matching status', async () => {
  const cases: [string, string, string | undefined, number, string, RegExp][] = [
    ['POST', '/v1/jobs', '{', 400, 'BAD_USAGE', /not JSON/],
    ['POST', '/v1/jobs', undefined, 400, 'BAD_USAGE', /: it has no body$/],
    ['POST', '/v1/jobs', '{"kind":"full"}', 400, 'BAD_USAGE', /: "devices" is missing$/],
    ['POST', '/v1/jobs', '{"kind":"full","devices":[]}', 400, 'NO_DEVICES', /^No devices given to backup$/],
    ['POST', '/v1/jobs', '{"kind":"half","devices":[]}', 400, 'BAD_USAGE', /"half", not one of full, /],
    ['POST', '/v1/jobs', '{"kind":"full","devices":[],"x":1}', 400, 'BAD_USAGE', /unknown key "x"$/],
    [
      'POST',
      '/v1/jobs',
      '{"kind":"full","devices":[],"options":{"rat":1}}',
      400,
      'BAD_USAGE',
      /: options: unknown key "rat"$/,
    ],
    [
      'POST',
      '/v1/jobs',
      '{"kind":"full","devices":[],"options":{"rate":"1"}}',
      400,
      'BAD_USAGE',
      /: options: "rate" is "1", not a whole number from 1$/,
    ],
    [
      'POST',
      '/v1/jobs',
      JSON.stringify({
        kind: 'full',
        devices: [...full(uuid1, 'a').devices, ...full('/dev/fda1', 'b').devices],
      }),
      400,
      'BAD_USAGE',
      /^\/dev\/fda1 is named twice in one backup$/,
    ],
    [
      'POST',
      '/v1/jobs',
      JSON.stringify({
        kind: 'full',
        devices: [...full('/dev/fda', 'a').devices, ...full('/dev/fda1', 'b').devices],
      }),
      400,
      'BAD_USAGE',
      /lie on one another$/,
    ],
    [
      'POST',
      '/v1/jobs',
      JSON.stringify({
        kind: 'full',
        devices: [...full('/dev/fda1', 'a').devices, ...full('/dev/fda2', 'a').devices],
      }),
      400,
      'BAD_USAGE',
      /both to go to nbd:\/\/h\/a$/,
    ],
    ['GET', '/v1/jobs/abcdef00', undefined, 404, 'JOB_NOT_FOUND', /abcdef00/],
    ['GET', '/v1/jobs/a', undefined, 400, 'BAD_USAGE', /"uuid" is "a", not the UUID of a job /],
    [
      'GET',
      '/v1/jobs?limit=x',
      undefined,
      400,
      'BAD_USAGE',
      /"limit" is "x", not a whole number from 1 to 999999$/,
    ],
    ['GET', '/v1/jobs?last=1', undefined, 400, 'BAD_USAGE', /unknown key "last"$/],
    ['POST', '/v1/jobs', 'null', 400, 'BAD_USAGE', /: its body is null, not an object$/],
    [
      'POST',
      '/v1/jobs',
      '{"kind":"full","devices":[{"device":"a"}]}',
      400,
      'BAD_USAGE',
      /: devices\[0\]: "target" is missing$/,
    ],
    ['POST', '/v1/tracking/stop', '[]', 400, 'BAD_USAGE', /: its body is \[\], not an object or null$/],
    [
      'POST',
      '/v1/tracking/stop',
      '{"device":""}',
      400,
      'BAD_USAGE',
      /"device" is "", not a text of 1 to 4096 characters$/,
    ],
    ['GET', '/v1/nothing', undefined, 404, 'BAD_USAGE', /There is no GET/],
    ['PUT', '/v1/jobs', '{}', 404, 'BAD_USAGE', /There is no PUT/],
  ];
  for (const [method, path, body, status, code, message] of cases) {
    const answer = await ask(method, path, body);
    const error = JSON.parse(answer.text) as { code: string; message: string };
    assert.equal(answer.status, status, `${method} ${path} ${body ?? ''}: ${answer.text}`);
    assert.equal(error.code, code);
    assert.match(error.message, message);
  }
});

for (const how of ['silent', 'deaf'] as const)
  test(`a job whose checks do not end (${how}) can be listed and cancelled, or its client may leave`, async (t) => {
    let open = shutDeaf();
    t.after(() => open());
    /** Checks that the device is claimed until its checks have ended, and free after that. */
    const assertHeldUntilOver = async (): Promise<void> => {
      if (how === 'deaf')
        await assert.rejects(client.post('/v1/jobs', full('/dev/fda1', 'done')), { code: 'DEVICE_BUSY' });
      open();
      await untilFree('/dev/fda1');
    };

    const starting = client.post('/v1/jobs', full('/dev/fda1', how));
    const outcome = assert.rejects(starting, { code: 'CANCELLED', message: /stopped by an operator/ });
    const preparing = await preparingJob(client);
    assert.deepEqual([preparing.phase, preparing.devices[0]?.device], ['preparing', '/dev/fda1']);
    const { uuid } = preparing;
    await assert.rejects(client.post(`/v1/jobs/${uuid}/pause`), { code: 'JOB_NOT_RUNNING' });
    const following = toEnd(uuid);
    const stopped = await client.post<JobStatus>(`/v1/jobs/${uuid.slice(0, 8)}/stop`);
    assert.deepEqual([stopped.uuid, stopped.state, stopped.error?.code], [uuid, 'CANCELLED', 'CANCELLED']);
    await outcome;
    assert.equal((await following).at(-1)?.state, 'CANCELLED');
    assert.equal((await client.get<JobStatus>(`/v1/jobs/${uuid}`)).state, 'CANCELLED');
    await assertHeldUntilOver();

    open = shutDeaf();
    const leaving = new AbortController();
    const left = client.post('/v1/jobs', full('/dev/fda1', how), leaving.signal);
    left.catch(() => undefined);
    const other = await preparingJob(client);
    leaving.abort();
    await assert.rejects(left);
    await waitFor('nothing is being checked', 30_000, async () => {
      const jobs = await client.get<JobStatus[]>('/v1/jobs');
      return jobs.every(({ uuid: each }) => each !== other.uuid);
    });
    await assertHeldUntilOver();
    await assert.rejects(client.get(`/v1/jobs/${other.uuid}`), { code: 'JOB_NOT_FOUND' });
  });

/** Returns the one job that is being checked. */
async function preparingJob(its: Client): Promise<JobStatus> {
  let found: JobStatus | undefined;
  await waitFor('a job is being checked', 30_000, async () => {
    found = (await its.get<JobStatus[]>('/v1/jobs')).find(({ state }) => state === 'NOT_STARTED');
    return found !== undefined;
  });
  return found!;
}

async function untilFree(device: string): Promise<void> {
  await waitFor(`${device} is free`, 30_000, async () => {
    try {
      await toEnd((await client.post<JobStatus>('/v1/jobs', full(device, 'done'))).uuid);
      return true;
    } catch (error) {
      assert.equal((error as { code?: string }).code, 'DEVICE_BUSY');
      return false;
    }
  });
}

test('the daemon waits at its end for the work of cancelled checks, as long as for jobs', async (t) => {
  for (const [cancelMs, isOver] of [
    [50, false],
    [30_000, true],
  ] as const) {
    const open = shutDeaf();
    t.after(open);
    const own = await startFakeDaemon(5, { cancelMs });
    t.after(() => rmSync(own.directory, { recursive: true }));
    const its = new Client(own.socket);
    const starting = assert.rejects(its.post('/v1/jobs', full('/dev/fda1', 'deaf')), { code: 'CANCELLED' });
    await preparingJob(its);
    const stopping = own.daemon.stop('the test stops it');
    await starting;
    if (isOver) open();
    assert.equal(await stopping, isOver);
  }
});

test('the daemon cancels running jobs at its end, informs listeners, and starts no job any more', async () => {
  const own = await startFakeDaemon();
  const its = new Client(own.socket);
  const { uuid } = await its.post<JobStatus>('/v1/jobs', full('/dev/fda1', 'frozen'));
  const seen: JobStatus[] = [];
  const listening = (async () => {
    for await (const status of its.events(`/v1/jobs/${uuid}/events`)) seen.push(status);
  })();
  await waitFor('the job is reported', 30_000, () => seen.length > 0);
  const checked = its.post('/v1/jobs', full('/dev/fda2', 'silent'));
  checked.catch(() => undefined);
  await preparingJob(its);
  const log = `${own.directory}/log`;
  assert.ok(!readFileSync(log, 'utf8').includes('job started'), 'nothing is logged while frozen');
  assert.equal(await own.daemon.stop('the test stops it'), true);
  await listening;
  assert.equal(seen.at(-1)?.state, 'CANCELLED');
  assert.match(seen.at(-1)!.error!.message, /the test stops it/);
  await assert.rejects(checked, { code: 'CANCELLED' });
  await assert.rejects(its.get('/v1/health'), { code: 'DAEMON_UNREACHABLE' });
  assert.match(readFileSync(log, 'utf8'), /job started[^]*job ended[^]*dattod has stopped/);
  rmSync(own.directory, { recursive: true });
});

test('a job that does not end when it is cancelled does not keep the daemon running for ever', async () => {
  const own = await startFakeDaemon(5, { cancelMs: 50 });
  await new Client(own.socket).post('/v1/jobs', full('/dev/fda1', 'stuck'));
  assert.equal(await own.daemon.stop('the test stops it'), false);
  assert.match(readFileSync(`${own.directory}/log`, 'utf8'), /a job did not end in time/);
  rmSync(own.directory, { recursive: true });
});
