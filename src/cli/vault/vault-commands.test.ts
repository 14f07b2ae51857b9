/** Tests of the parsing and the output of the vault commands, without a vault. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { samplePoint, sampleDevice } from '../../../test/helpers/points.ts';
import { silentIo } from '../../../test/helpers/silent-io.ts';
import { AgentError } from '../../base/errors.ts';
import { toShare } from './options.ts';
import { renderCheck } from '../commands/vault/check.ts';
import { type PointFacts, pointDocument } from './point-document.ts';
import { addressOf } from '../commands/export.ts';
import { untilInterrupted } from './interrupt.ts';
import { bytesUpdate, countUpdate } from './progress.ts';
import { renderPoint, renderPoints } from '../commands/points.ts';
import { digitsNeeded } from './point-digits.ts';
import { renderForgotten, renderGroups } from '../commands/forget.ts';
import { renderInit } from '../commands/vault/init.ts';
import { askNewPassphrase, givenKey } from './secrets.ts';
import { coverageOf } from '../commands/verify-point.ts';
import { waitingHooks } from './waiting.ts';

const noFacts = { protected: new Set<string>(), checks: [], stored: new Map<string, number>() };

test('a share must be above 0 and at most 1', () => {
  const share = toShare('--sample');
  assert.deepEqual(['5%', '0.05', '100%', '1', '0.5%'].map(share), [0.05, 0.05, 1, 1, 0.005]);
  for (const text of ['0', '0%', '101%', '1.5', '-1', 'half', ''])
    assert.throws(() => share(text), { code: 'BAD_USAGE' }, text);
});

test('an export listens on a path or HOST:PORT', () => {
  const runDir = '/run/x';
  assert.match((addressOf({ runDir }) as { path: string }).path, /^\/run\/x\/export-[0-9a-f]{8}\.sock$/);
  assert.deepEqual(addressOf({ runDir, listen: '127.0.0.1:10809' }), {
    kind: 'tcp',
    host: '127.0.0.1',
    port: 10809,
  });
  assert.deepEqual(addressOf({ runDir, listen: '[::1]:0' }), { kind: 'tcp', host: '::1', port: 0 });
  assert.deepEqual(addressOf({ runDir, listen: '/tmp/a:b' }), { kind: 'unix', path: '/tmp/a:b' });
  for (const listen of ['nowhere', 'h:70000', ''])
    assert.throws(() => addressOf({ runDir, listen }), /listen/);
});

test('at most one key may be given, and a new passphrase is asked for twice', async () => {
  await assert.rejects(givenKey({ passphrase: true, keyFile: '/k' }, silentIo()), { code: 'BAD_USAGE' });
  assert.equal(await givenKey({}, silentIo()), undefined);
  assert.deepEqual(await givenKey({ recoveryCode: true }, silentIo(['AB-CD'])), {
    kind: 'recovery',
    code: 'AB-CD',
  });
  assert.equal(await askNewPassphrase(silentIo(['x y', 'x y'])), 'x y');
  await assert.rejects(askNewPassphrase(silentIo(['x', 'y'])), { code: 'BAD_USAGE' });
  await assert.rejects(askNewPassphrase(silentIo(['', ''])), { code: 'BAD_USAGE' });
});

test('the first Ctrl-C cancels the work cleanly, the second quits at once', async () => {
  let press = (): void => undefined;
  const left: number[] = [];
  const io = {
    ...silentIo(),
    onInterrupt: (callback: () => void) => {
      press = callback;
      return () => undefined;
    },
    quit: (code: number) => void left.push(code),
  };
  const work = untilInterrupted(io, async (signal) => {
    press();
    assert.ok(signal.aborted);
    press();
    await Promise.reject(new Error('the error of the work'));
  });
  await assert.rejects(work, { code: 'CANCELLED' });
  assert.deepEqual(left, [4]);
});

test('a store that does not answer is reported every ten seconds', () => {
  const said: string[] = [];
  let time = 0;
  const io = { ...silentIo(), err: (text: string) => void said.push(text) };
  const error = new AgentError('VAULT_UNREACHABLE', 's3: no server listens there');
  const wait = (json: boolean, elapsedMs: number): void => {
    const wanted = {
      request: { kind: 'get', key: 'k', bytes: 0, signal: undefined } as const,
      error,
      attempts: 1,
      elapsedMs,
      waitMs: 1,
    };
    (json ? waitingHooks({ io, json }) : hooks).onWait?.(wanted);
  };
  const hooks = waitingHooks({ io, json: false }, () => time);
  wait(false, 1000);
  wait(false, 3000);
  time = 5000;
  wait(false, 8000);
  time = 11_000;
  wait(false, 14_000);
  wait(true, 14_000);
  assert.deepEqual(said, Array(2).fill('waiting: s3: no server listens there\n'));
});

test('points are shown with digits that distinguish them, one row per device', () => {
  const a = samplePoint({
    id: 'aaaaaaaa'.padEnd(32, '0'),
    devices: [sampleDevice(), sampleDevice({ path: '/b' })],
  });
  const b = samplePoint({ id: 'aaaaaaaab'.padEnd(32, '0') });
  assert.equal(digitsNeeded([a.id, b.id]), 12);
  assert.equal(digitsNeeded([]), 8);
  const facts = {
    ...noFacts,
    protected: new Set([b.id]),
    checks: [
      {
        ...({ point: b.id, level: 'read', at: '2024-05-02T00:00:00.000Z', coverage: 0.5 } as const),
        ...({ outcome: 'whole', problems: [], agent: '1' } as const),
      },
    ],
  };
  const text = renderPoints({
    vault: { id: 'v', name: 'n' },
    points: [a, b].map((point) => pointDocument(point, facts)),
    damaged: [{ key: 'points/x', code: 'VAULT_DAMAGED', message: 'torn\u001b' }],
  });
  const lines = text.split('\n');
  assert.equal(lines.length, 6);
  assert.match(lines[1]!, /^aaaaaaaa0000 +2024-05-01 \S+ +alpha +\/dev\/sda1 +ext4 root .* no$/);
  assert.match(lines[2]!, /^ +\/b /);
  assert.match(lines[3]!, /^aaaaaaaab000 \(protected\) .* whole: read 50%$/);
  assert.equal(lines[4], 'damaged: points/x: torn\\u001b');
});

test('damage that a check found is shown until a later check of that level clears it', () => {
  const point = samplePoint();
  const check = (level: 'reachable' | 'read', outcome: 'whole' | 'damaged', day: number) => ({
    ...{ point: point.id, level, at: `2024-05-0${day}T00:00:00.000Z`, coverage: 1 },
    ...{ outcome, problems: [], agent: '1' },
  });
  const shown = (checks: PointFacts['checks']): string => {
    const document = pointDocument(point, { ...noFacts, checks });
    return renderPoints({ vault: { id: 'v', name: 'n' }, points: [document], damaged: [] }).split('\n')[1]!;
  };
  const found = [check('read', 'damaged', 1), check('reachable', 'whole', 2)];
  assert.match(shown(found), / damaged: read$/);
  assert.match(shown([...found, check('read', 'whole', 3)]), / whole: read$/);
});

test('a list of points has no roots and no layout; the layout is shown for a single point', () => {
  const point = samplePoint();
  const document = pointDocument(point, noFacts);
  assert.ok(!JSON.stringify(document).includes('a5a5'));
  assert.match(
    renderPoint({ ...document, layout: point.machine.layout }),
    /^layout +disks \(--json shows it\)$/m,
  );
});

test('the coverage of a check of some devices is weighed by the used bytes of the point', () => {
  const devices = [
    { path: 'a', used_bytes: 300 },
    { path: 'b', used_bytes: 100 },
  ];
  const found = (path: string, coverage: number) => ({ device: { path }, found: { coverage } });
  assert.equal(coverageOf(devices, [found('a', 1), found('b', 1)]), 1);
  assert.equal(coverageOf(devices, [found('a', 1)]), 0.75);
  assert.equal(coverageOf(devices, [found('a', 0.5)]), 0.375);
});

test('the output lists forgotten points and why the others stay', () => {
  const document = {
    ...{ dry_run: true, protected: [], unprotected: [], damaged: [] },
    forgotten: ['b'.repeat(32)],
    groups: [
      {
        ...{ machine: 'alpha', devices: ['/dev/sda1'] },
        keep: [
          { point: 'a'.repeat(32), finished: '2024-05-02T12:00:00.000Z', reasons: ['last 1', 'protected'] },
        ],
        forget: [{ point: 'b'.repeat(32), finished: '2024-05-01T12:00:00.000Z' }],
      },
    ],
  };
  assert.match(
    renderGroups(document),
    /^alpha: \/dev\/sda1\npoint .*\naaaaaaaa .* last 1, protected\nbbbbbbbb .* would be forgotten\n\n$/,
  );
  assert.equal(renderForgotten(document), '1 recovery point would be forgotten\n');
});

test('the recovery code is printed once, in two lines', () => {
  const code = Array.from({ length: 14 }, (_, at) => `A${at}`.padEnd(4, '0')).join('-');
  const text = renderInit({
    ...{ location: 'vault:/v', id: 'i', created: 'c', chunk_size: 1, pack_size: 1, key_file: null },
    ...{ recovery_code: code, keys: [] },
  });
  assert.equal(
    text
      .split('\n')
      .filter((line) => line.startsWith('    '))
      .join('')
      .replaceAll(' ', ''),
    code,
  );
});

test('a check lists lost ranges and the points that are whole', () => {
  const device = { device: '/dev/a', size: 4096, whole: true, lost_bytes: 0, lost: [], more_lost: false };
  const torn = { ...device, whole: false, lost_bytes: 1024, lost: [{ offset: 512, length: 1024 }] };
  const of = { finished: '2024-05-01T12:00:00.000Z', machine: 'alpha' };
  const text = renderCheck({
    ...{
      ok: false,
      packs: 1,
      bytes: 1024,
      coverage: 0,
      foreign: ['note'],
      repair: null,
      missing_packs: ['p'],
    },
    damaged_packs: [],
    damaged_objects: [],
    points: [
      { ...of, point: 'x', whole: false, devices: [torn] },
      { ...of, point: 'y', whole: true, devices: [device] },
    ],
  });
  assert.match(text, /^points +2, of which whole: 1$/m);
  assert.match(
    text,
    /^not whole: point x .* \/dev\/a has lost 1\.00 KiB of 4\.00 KiB \(1024 bytes at 512\)$/m,
  );
  assert.match(text, /^whole: point y of alpha/m);
  assert.match(text, /^missing pack p\nnot whole.*\nwhole.*\nforeign, ignored: note\n$/m);
});

test('progress has a fraction if there is a total', () => {
  assert.deepEqual(bytesUpdate('reading', 512, 1024, 256), {
    phase: 'reading',
    fraction: 0.5,
    parts: ['512 B of 1.00 KiB', '256 B/s', '2.0 s left'],
  });
  assert.equal(bytesUpdate('reading', 512, undefined).fraction, undefined);
  assert.deepEqual(countUpdate('marking', 'pages', 3), {
    phase: 'marking',
    fraction: undefined,
    parts: ['3 pages'],
  });
});
