/** Tests of dattocli in this process, against a daemon in this process whose engine copies nothing. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { type Said, dattocliHere } from '../../test/helpers/dattocli-here.ts';
import { type FakeDaemon, startFakeDaemon } from '../../test/helpers/fake-daemon.ts';
import type { JobStatus } from '../api/job-status.ts';

let server: FakeDaemon;
before(async () => {
  server = await startFakeDaemon();
});
after(() => server.stop());

/** Runs dattocli. Presses Ctrl-C as soon as `interrupt` matches standard output or error. */
function run(args: readonly string[], interrupt?: RegExp): Promise<Said> {
  const here = [...args, '--socket', server.socket];
  return dattocliHere(here, interrupt === undefined ? {} : { interrupt });
}

const start = (how: string, ...more: string[]) => [
  ...['startbackup', '--full', '--device', '/dev/fda1', '--target', `nbd://h/${how}`, ...more],
];
const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

test('startbackup prints the UUID and returns; stopbackup ends the job', async () => {
  const started = await run(start('forever'));
  assert.deepEqual([started.code, started.err], [0, '']);
  const job = started.out.trim();
  assert.match(job, uuid);
  const busy = await run(start('done'));
  assert.equal(busy.code, 1);
  assert.match(busy.err, /^dattocli: Device is already being backed up: \/dev\/fda1 \(wait for job .*\)\n$/);
  assert.match((await run(['pausebackup', job])).out, / is paused\n$/);
  assert.match((await run(['backupstatus'])).out, /IN_PROGRESS \(paused, /);
  assert.match((await run(['resumebackup', job.slice(0, 8)])).out, / is resumed\n$/);
  assert.deepEqual(await run(['stopbackup', job]), { code: 0, out: `${job} has ended\n`, err: '' });
  const again = await run(['stopbackup', job]);
  assert.equal(again.code, 1);
  assert.match(again.err, /^dattocli: Job not running \(job .* is CANCELLED since /);
  const followed = await run(['backupstatus', job, '--follow']);
  assert.equal(followed.code, 4);
});

test('--wait exits with the outcome', async () => {
  const cases: [string, string[], number, RegExp][] = [
    ['done', [], 0, /^(preparing|copying) /],
    ['warn', [], 5, /warning TARGET_CANNOT_FLUSH: The server offers no flush/],
    ['warn', ['--strict'], 1, /warning TARGET_CANNOT_FLUSH/],
    ['fail', [], 1, /dattocli: \/dev\/fda1 cannot be read at byte 4096 \(replace it\)\n$/],
    ['unreachable', [], 1, /^dattocli: Nobody answers at /],
  ];
  for (const [how, more, code, err] of cases) {
    const result = await run(start(how, '--wait', ...more));
    assert.equal(result.code, code, how);
    assert.match(result.err, err);
    if (how !== 'unreachable') assert.match(result.out.split('\n')[0]!, uuid);
  }
});

test('the table at the end shows how long the filesystem was frozen', async () => {
  const { out } = await run(start('done', '--wait'));
  assert.match(out, /^.{36}\n\ndevice .* frozen for .*\n\/dev\/fda1 .* 13 ms .*nbd:\/\/h\/done\n$/);
});

test('Ctrl-C cancels the job and exits with 4', async () => {
  const result = await run(start('forever', '--wait'), /preparing|copying/);
  assert.equal(result.code, 4);
  const job = result.out.split('\n')[0]!;
  assert.match(result.err, /dattocli: Cancelled: stopped by an operator/);
  assert.match((await run(['backupstatus', job])).out, /^state {4}CANCELLED$/m);
});

test('--json prints one document, an error as one object, and with --follow one document per line', async () => {
  const waited = await run(start('warn', '--wait', '--json'));
  assert.equal(waited.code, 5);
  const status = JSON.parse(waited.out) as JobStatus;
  assert.equal(status.state, 'SUCCEEDED');
  const failed = await run(start('fail', '--wait', '--json'));
  assert.equal(failed.code, 1);
  const lines = failed.err.trim().split('\n');
  assert.equal((JSON.parse(lines.at(-1)!) as { code: string }).code, 'DEVICE_READ_ERROR');
  const followed = await run(['backupstatus', status.uuid, '--follow', '--json']);
  for (const line of followed.out.trim().split('\n'))
    assert.equal((JSON.parse(line) as JobStatus).uuid, status.uuid);
  for (const command of [
    'jobs',
    'devices',
    'basicinfo',
    'completeinfo',
    'version',
    'backupstatus',
    'tracking',
    'chains',
  ]) {
    const { code, out } = await run([command, '--json']);
    assert.equal(code, 0);
    assert.doesNotThrow(() => JSON.parse(out) as unknown, command);
    assert.equal(out.indexOf('\n'), out.length - 1);
  }
  const wrong = await run(['jobs', '--nonsense', '--json']);
  assert.equal(wrong.code, 2);
  assert.deepEqual(Object.keys(JSON.parse(wrong.err) as object), ['code', 'message', 'hint']);
});

test('tracking shows the tracker of each device, and tracking stop ends it', async () => {
  await run(start('done', '--wait'));
  const shown = await run(['tracking']);
  assert.equal(shown.code, 0);
  assert.match(shown.out, /^test: yes, it is a fake$/m);
  assert.match(
    shown.out,
    /^\/dev\/fda1 +test +2001-09-\S+ \S+ +fake-epo +4\.00 KiB +8\.00 KiB +2\.00 KiB +continues$/m,
  );
  assert.match(
    shown.out,
    /^\/dev\/fda2 +nothing +- .* no backup of it has begun to track it; tracking begins with/m,
  );
  assert.deepEqual(await run(['tracking', 'stop', '/dev/fda1']), {
    code: 0,
    out: '/dev/fda1 is no longer tracked\n',
    err: '',
  });
  assert.equal((await run(['tracking', 'stop'])).out, 'no device was tracked\n');
  const unknown = await run(['tracking', 'stop', '/dev/none']);
  assert.deepEqual([unknown.code, unknown.out], [1, '']);
  assert.equal((await run(['tracking', 'halt'])).code, 2);
  assert.equal((await run(['chains'])).out, 'no backups yet\n');
});

test('wrong usage exits with 2, names the mistake, and starts nothing', async () => {
  const before = (await run(['jobs', '--json'])).out;
  const pair = ['--device-pair', '/dev/fda1', 'h', '1'];
  const cases: [string[], RegExp][] = [
    [['nonsense'], /Unknown command 'nonsense'/],
    [['jobs', 'extra'], /[Tt]oo many arguments/],
    [['stopbackup'], /Missing required argument 'job'/],
    [['startbackup', ...pair], /one of --full, --incremental or --differential/],
    [['startbackup', '-f', '-i', ...pair], /one of --full, --incremental or --differential/],
    [['startbackup', '-f'], /No devices given to backup/],
    [['startbackup', '-f', '--device-pair', '/dev/fda1', 'h'], /needs DEVICE HOST PORT/],
    [['startbackup', '-f', ...pair, 'extra'], /[Tt]oo many arguments/],
    [['startbackup', '-f', '--vector', '/dev/fda1', 'h', '99999'], /"99999" is not a port/],
    [['startbackup', '-f', ...pair, '--device', '/dev/fda1'], /has no --target after it/],
    [['verify', '--device', '/dev/fda1'], /has no --target after it/],
    [['verify', ...pair, '--level', 'read'], /--level and --sample are for recovery points/],
    [['verify', 'latest', ...pair], /with a recovery point/],
    [['vault'], /Missing subcommand/],
    [['vault', 'nonsense'], /Unknown command 'nonsense'/],
    [['startbackup', '-f', '--target', 'nbd://h'], /has no --device before it/],
    [['startbackup', '-f', ...pair, '--max-freeze', 'soon'], /--max-freeze "soon"/],
    [['startbackup', '-f', ...pair, '--max-freeze', '0'], /--max-freeze "0" must be more than 0/],
    [['startbackup', '-f', ...pair, '--rate', 'fast'], /--rate "fast"/],
    [['startbackup', '-f', ...pair, '--impact', 'none'], /--impact <level>.*low, normal, high/],
    [['startbackup', '-f', ...pair, '--connections', '17'], /--connections "17"/],
    [
      ['startbackup', '-f', ...pair, '--verify', 'all'],
      /--verify <how>.*Allowed choices are none, sample, full/,
    ],
    [['startbackup', '-f', ...pair, '--on-read-error', 'x'], /Allowed choices are fail, zero/],
    [['jobs', '--limit', '0'], /--limit "0"/],
  ];
  for (const [args, err] of cases) {
    const result = await run(args);
    assert.equal(result.code, 2, args.join(' '));
    assert.match(result.err, err);
    assert.match(result.err, /^dattocli: [^\n]+\n$/, 'one line');
    assert.equal(result.out, '');
  }
  assert.equal((await run(['jobs', '--json'])).out, before);
});

test('if the daemon does not run, the exit code is 3 and the hint tells how to start it', async () => {
  const nowhere = ['--socket', '/no/such.sock'];
  assert.deepEqual(await dattocliHere(['jobs', ...nowhere]), {
    code: 3,
    out: '',
    err: "dattocli: dattod does not answer on /no/such.sock: the socket does not exist (start it with 'dattod', or name its socket with --socket)\n",
  });
  assert.equal((await dattocliHere(['version', ...nowhere])).code, 0);
  assert.equal((await dattocliHere([])).code, 2);
});

test('help exits with 0', async () => {
  for (const args of [['--help'], ['help'], ['startbackup', '--help'], ['help', 'jobs'], ['--version']]) {
    const { code, out, err } = await run(args);
    assert.deepEqual([code, err], [0, ''], args.join(' '));
    assert.notEqual(out, '');
  }
});
