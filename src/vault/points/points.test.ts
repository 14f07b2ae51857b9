import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sampleDevice, samplePoint } from '../../../test/helpers/points.ts';
import { AgentError, type ErrorDocument } from '../../base/errors.ts';
import { newId } from '../ids.ts';
import { sealDocument } from '../sealed.ts';
import { type MemoryStore, openMemoryStore } from '../../../test/helpers/stores/memory-store.ts';
import { Vault } from '../vault.ts';
import { listChecks, putCheck } from './checks.ts';
import { latestOf } from './find.ts';
import { parsePoint } from './point.ts';
import {
  deletePoint,
  findPoint,
  forgetPoint,
  isProtected,
  listPoints,
  listProtected,
  protectPoint,
  putPoint,
  readPoint,
  unprotectPoint,
} from './points.ts';

function refused(code: ErrorDocument['code']): (error: unknown) => true {
  return (error) => {
    assert.ok(error instanceof AgentError, String(error));
    assert.equal(error.code, code, error.message);
    return true;
  };
}

async function makeVault(): Promise<{ store: MemoryStore; vault: Vault }> {
  const store = openMemoryStore();
  const keys = [{ material: { kind: 'passphrase', passphrase: 'x' } as const }];
  return { store, vault: await Vault.init(store, { keys, cost: { N: 1024, p: 1 } }) };
}

test('a point is read back as it was put', async () => {
  const { vault } = await makeVault();
  const point = samplePoint({
    warnings: [
      { code: 'NOT_FROZEN', message: 'm', device: '/dev/sda1' },
      { code: 'X', message: 'n' },
    ],
    devices: [
      sampleDevice(),
      sampleDevice({
        path: '/dev/sdb',
        filesystem: null,
        partition: null,
        read_errors: [{ offset: 0, length: 1 }],
      }),
    ],
  });
  await putPoint(vault, point);
  assert.deepEqual(await readPoint(vault, point.id), point);
  await assert.rejects(readPoint(vault, newId()), refused('POINT_NOT_FOUND'));
});

test('fields of later versions are left out; missing and invalid fields are damage', () => {
  const point = samplePoint({ warnings: [{ code: 'X', message: 'm' }], devices: [sampleDevice()] });
  const device = point.devices[0]!;
  const further = {
    ...point,
    later: 1,
    machine: { ...point.machine, later: 1 },
    devices: [{ ...device, later: 1, filesystem: { ...device.filesystem, later: 1 } }],
  };
  assert.deepEqual(parsePoint(point.id, further, 'it'), point);

  const damaged = (document: unknown): void =>
    assert.throws(
      () => parsePoint(point.id, document, 'it'),
      refused('VAULT_DAMAGED'),
      JSON.stringify(document),
    );
  for (const name of Object.keys(point))
    for (const value of [undefined, null, -1]) damaged({ ...point, [name]: value });
  for (const name of Object.keys(point.machine))
    damaged({ ...point, machine: { ...point.machine, [name]: 7 } });
  for (const name of Object.keys(device))
    for (const value of [undefined, -1, 'x'.repeat(3), {}])
      if (!(typeof value === 'string' && ['path', 'tracker', 'kind'].includes(name)))
        damaged({ ...point, devices: [{ ...device, [name]: value }] });
  for (const size of [1.5, 2 ** 53, '1'] as unknown[]) damaged({ ...point, devices: [{ ...device, size }] });
  for (const root of ['', 'a5', 'A5'.repeat(32), 'a5'.repeat(33)])
    damaged({ ...point, devices: [{ ...device, root }] });
  damaged({ ...point, finished: 'yesterday' });
  damaged({ ...point, finished: '2024-13-01T00:00:00.000Z' });
  damaged({ ...point, id: newId() });
  for (const document of [undefined, null, 7, 'text', []]) damaged(document);
  assert.throws(() => parsePoint(point.id, { ...point, format: 2 }, 'it'), refused('VAULT_TOO_NEW'));
});

test('points are listed by time; damaged objects are reported, foreign objects are not read', async () => {
  const { store, vault } = await makeVault();
  const points = ['2024-03-01', '2024-01-01', '2024-02-01'].map((day) =>
    samplePoint({ finished: `${day}T00:00:00.000Z` }),
  );
  for (const point of points) await putPoint(vault, point);
  const [march, january, february] = points;
  // An object moved from another point, a truncated one, and one whose JSON is not a point.
  const swapped = newId();
  store.objects.set(`points/${swapped}`, store.objects.get(`points/${march!.id}`)!);
  const short = newId();
  const { data } = store.objects.get(`points/${march!.id}`)!;
  store.objects.set(`points/${short}`, { data: data.subarray(0, 20), modified: 0 });
  const strange = newId();
  await vault.store.put(`points/${strange}`, sealDocument(vault.secrets, `points/${strange}`, { format: 1 }));
  store.objects.set('points/readme', { data: Buffer.from('x'), modified: 0 });

  const list = await listPoints(vault);
  assert.deepEqual(list.points, [january, february, march]);
  assert.deepEqual(
    list.damaged.map(({ key, error }) => [key, error.code]).sort(),
    [swapped, short, strange].map((id) => [`points/${id}`, 'VAULT_DAMAGED']).sort(),
  );
});

test('a point that is deleted while points are listed is left out', async () => {
  const { store, vault } = await makeVault();
  for (let i = 0; i < 40; i++) await putPoint(vault, samplePoint());
  const vanishing = await Vault.open(
    {
      ...store,
      get: async (key, options) => {
        for (const each of [...store.objects.keys()].filter((name) => name.startsWith('points/')).slice(20))
          store.objects.delete(each);
        return store.get(key, options);
      },
    },
    vault.secrets,
  );
  const { points, damaged } = await listPoints(vanishing);
  assert.equal(damaged.length, 0);
  assert.ok(points.length <= 20);
});

test('a point is found by its ID, by its first digits, and as the latest of a device', async () => {
  const { vault } = await makeVault();
  const day = (n: number): string => `2024-01-0${n}T00:00:00.000Z`;
  const other = sampleDevice({
    path: '/dev/sdb1',
    filesystem: { type: 'xfs', uuid: 'FFFF-0001', label: 'data' },
    partition: null,
  });
  const a = samplePoint({ id: `abcd1${'0'.repeat(27)}`, finished: day(1) });
  const b = samplePoint({ id: `abcd2${'0'.repeat(27)}`, finished: day(3) });
  const c = samplePoint({ id: `ef012${'0'.repeat(27)}`, finished: day(2), devices: [other] });
  for (const point of [a, b, c]) await putPoint(vault, point);

  assert.deepEqual(await findPoint(vault, a.id), a);
  assert.deepEqual(await findPoint(vault, 'ABCD2'), b);
  assert.deepEqual(await findPoint(vault, 'ef01'), c);
  assert.deepEqual(await findPoint(vault, 'latest'), b);
  for (const name of ['/dev/sdb1', 'ffff-0001', 'UUID=FFFF-0001', 'data', 'LABEL=data'])
    assert.deepEqual(await findPoint(vault, `latest:${name}`), c, name);
  assert.deepEqual(await findPoint(vault, 'latest', { device: 'PARTUUID=7D1C0C3E-02' }), b);
  await assert.rejects(findPoint(vault, 'abcd'), refused('POINT_AMBIGUOUS'));
  await assert.rejects(findPoint(vault, 'abc'), refused('BAD_USAGE'));
  await assert.rejects(findPoint(vault, 'newest'), refused('BAD_USAGE'));
  await assert.rejects(findPoint(vault, 'latest:'), refused('BAD_USAGE'));
  await assert.rejects(findPoint(vault, ''), refused('BAD_USAGE'));
  await assert.rejects(findPoint(vault, 'ffff'), refused('POINT_NOT_FOUND'));
  await assert.rejects(findPoint(vault, 'latest:/dev/sdc'), refused('POINT_NOT_FOUND'));
  await assert.rejects(findPoint(vault, 'latest:LABEL=/dev/sdb1'), refused('POINT_NOT_FOUND'));

  // `latest` of which machine?
  const { machine } = a;
  const d = samplePoint({ finished: day(9), machine: { ...machine, name: 'beta' } });
  await putPoint(vault, d);
  await assert.rejects(findPoint(vault, 'latest'), refused('POINT_AMBIGUOUS'));
  assert.deepEqual(await findPoint(vault, 'latest', { machine: 'alpha' }), b);
  assert.deepEqual(await findPoint(vault, 'latest', { machine: 'beta' }), d);
  assert.deepEqual(await findPoint(vault, 'latest:data'), c);
});

test('latest is not a point that is dated later than its arrival, if there is another', async () => {
  const { store, vault } = await makeVault();
  const now = Date.now();
  const iso = (time: number): string => new Date(time).toISOString();
  const today = samplePoint({ finished: iso(now - 60_000) });
  const distant = samplePoint({ finished: '2099-01-01T00:00:00.000Z' });
  const ahead = samplePoint({ finished: iso(now + 2 * 24 * 3600_000) });
  for (const point of [today, distant, ahead]) await putPoint(vault, point);
  assert.deepEqual(await findPoint(vault, 'latest'), today);
  // If no point has a valid time, the one that arrived last.
  await forgetPoint(vault, today.id);
  const arrived = (id: string, modified: number): void => {
    const key = `points/${id}`;
    store.objects.set(key, { ...store.objects.get(key)!, modified });
  };
  arrived(distant.id, now - 5000);
  arrived(ahead.id, now - 1000);
  assert.deepEqual(await findPoint(vault, 'latest'), ahead);
  // A copied vault: all objects are new, so the points' own times decide.
  const copied = [1, 3, 2].map((day) => samplePoint({ finished: `2024-01-0${day}T00:00:00.000Z` }));
  for (const { id } of [distant, ahead]) await forgetPoint(vault, id);
  for (const point of copied) await putPoint(vault, point);
  assert.deepEqual(await findPoint(vault, 'latest'), copied[1]);
  // A rescue system whose clock is wrong: all points are in the future, and one of them is the latest.
  assert.deepEqual(latestOf(copied, 'latest', {}, { now: 0 }), copied[1]);
  // Its clock is between the points. By the store's times, none of them is in the future.
  const between = Date.parse(copied[0]!.finished) + 1000;
  const stored = new Map(copied.map(({ id, finished }) => [id, Date.parse(finished) + 60_000]));
  assert.deepEqual(latestOf(copied, 'latest', {}, { now: between, stored }), copied[1]);
  assert.deepEqual(latestOf(copied, 'latest', {}, { now: between }), copied[0]);
  const unknown = new Map([...stored, [copied[1]!.id, 0]] as const);
  assert.deepEqual(latestOf(copied, 'latest', {}, { now: between, stored: unknown }), copied[2]);
});

test('a UUID or label that several devices have is ambiguous', async () => {
  const { vault } = await makeVault();
  const clone = (path: string, identity: string) => sampleDevice({ path, identity });
  const points = [
    samplePoint({ finished: '2024-01-01T00:00:00.000Z', devices: [clone('/dev/loop0', 'file /a')] }),
    samplePoint({ finished: '2024-01-02T00:00:00.000Z', devices: [clone('/dev/loop1', 'file /b')] }),
    samplePoint({ finished: '2024-01-03T00:00:00.000Z', devices: [clone('/dev/loop0', 'file /a')] }),
  ];
  for (const point of points) await putPoint(vault, point);
  const uuid = points[0]!.devices[0]!.filesystem!.uuid;
  for (const name of [uuid, `UUID=${uuid}`, 'root', '7d1c0c3e-02'])
    await assert.rejects(
      findPoint(vault, `latest:${name}`),
      {
        code: 'POINT_AMBIGUOUS',
        message: /2 devices.*\/dev\/loop0 \(last point .*2024-01-03.*\/dev\/loop1 \(last point .*2024-01-02/,
      },
      name,
    );
  await assert.rejects(findPoint(vault, 'latest', { device: uuid }), refused('POINT_AMBIGUOUS'));
  assert.deepEqual(await findPoint(vault, 'latest:/dev/loop1'), points[1]);
  assert.deepEqual(await findPoint(vault, 'latest'), points[2]);
  // The same device under another path and formatted again counts as one device.
  await forgetPoint(vault, points[1]!.id);
  const moved = samplePoint({
    finished: '2024-01-04T00:00:00.000Z',
    devices: [{ ...clone('/dev/loop5', 'file /a'), filesystem: { type: 'xfs', uuid: 'n', label: 'root' } }],
  });
  await putPoint(vault, moved);
  assert.deepEqual(await findPoint(vault, 'latest:root'), moved);
});

test('a protected point is not forgotten; a forgotten point leaves no objects', async () => {
  const { store, vault } = await makeVault();
  const empty = store.objects.size;
  const point = samplePoint();
  await assert.rejects(protectPoint(vault, point.id), refused('POINT_NOT_FOUND'));
  await putPoint(vault, point);
  await protectPoint(vault, point.id);
  assert.deepEqual(await listProtected(vault), new Set([point.id]));
  await assert.rejects(forgetPoint(vault, point.id), refused('POINT_PROTECTED'));
  assert.deepEqual(await readPoint(vault, point.id), point);
  await unprotectPoint(vault, point.id);
  assert.equal(await isProtected(vault, point.id), false);
  await putCheck(vault, point.id, {
    level: 'read',
    at: '2024-05-02T00:00:00.000Z',
    coverage: 0.05,
    outcome: 'whole',
    problems: [],
    agent: '1.0.0',
  });
  await forgetPoint(vault, point.id);
  assert.equal(store.objects.size, empty);
  await forgetPoint(vault, point.id);
  await deletePoint(vault, point.id);
});

test('checks are stored with their point', async () => {
  const { store, vault } = await makeVault();
  const point = newId();
  const another = newId();
  const check = {
    level: 'reachable',
    at: '2024-05-02T00:00:00.000Z',
    coverage: 1,
    outcome: 'damaged',
    problems: Array.from({ length: 1500 }, (_, i) => `problem ${i}`),
    agent: '1.0.0',
  } as const;
  const devices = [{ path: '/dev/sda1', coverage: 0.5, outcome: 'damaged' }] as const;
  await putCheck(vault, point, { ...check, devices });
  await putCheck(vault, another, {
    ...check,
    at: '2024-05-01T00:00:00.000Z',
    outcome: 'whole',
    problems: [],
  });
  const { checks } = await listChecks(vault);
  assert.deepEqual(
    checks.map(({ point: of }) => of),
    [another, point],
  );
  const own = (await listChecks(vault, point)).checks[0]!;
  assert.equal(own.problems.length, 1001);
  assert.deepEqual([own.devices, checks[0]!.devices], [devices, undefined]);
  assert.equal(own.problems.at(-1), 'and 500 more');
  // A check cannot be moved to another point.
  const key = [...store.objects.keys()].find((each) => each.startsWith(`checks/${another}/`))!;
  store.objects.set(`checks/${point}/${newId()}`, store.objects.get(key)!);
  const listed = await listChecks(vault, point);
  assert.equal(listed.checks.length, 1);
  assert.equal(listed.damaged.length, 1);
});
