/**
 * The campaign of continuity over reboots, on a whole Debian 12 with its own systemd. It boots one machine
 * seven times, with volumes of every kind and the units enabled as docs/tracking.md describes. There are
 * reboots with the record in a file and on a device, a power cut, and an early unit that is killed by its
 * time limit.
 *
 * After each boot the tracking continues, or an incremental becomes a differential with the true reason.
 * Every image holds the files of its device.
 *
 *     scripts/node test/machine/continuity.ts [--work DIRECTORY] [--from STEP] [--to STEP] [--volumes NAME,…]
 *
 * It needs root, build/ (./one_step_build), apt-get install mmdebstrap qemu-system-x86 e2fsprogs, an archive
 * of Debian, 10 GB in the work and cache directories, and most of an hour. The machine is made once. `--work`
 * keeps its disks there, and `--from` continues with them at a step. `--volumes` uses only the named volumes:
 * root takes the most time by far.
 */
import { existsSync } from 'node:fs';
import { cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { MiB } from '../../src/base/bytes.ts';
import type { JobStatus } from '../../src/api/job-status.ts';
import type { TrackingDocument } from '../../src/api/tracking.ts';
import { exec } from '../helpers/exec.ts';
import { bootMachine, type MachineResult } from './boot.ts';
import { makeImage, prepareDebian, type Base } from './debian.ts';

const repository = join(import.meta.dirname, '../..');
const programs = { mmdebstrap: 'mmdebstrap', 'qemu-system-x86_64': 'qemu-system-x86', mke2fs: 'e2fsprogs' };
/** The machine is emulated, and may run beside other work. */
const deadlineMs = 40 * 60_000;

const volumes = {
  root: '/',
  part: '/srv/part',
  xfs: '/srv/xfs',
  ext: '/srv/ext',
  other: '/srv/other',
  crypt: '/srv/crypt',
  md: '/srv/md',
} as const;
type Name = keyof typeof volumes;
const names = Object.keys(volumes) as Name[];

/** `continues`, or a pattern for the reason. If there are several, each of them is right. */
type Expected = RegExp | 'continues' | readonly (RegExp | 'continues')[];

interface Step {
  readonly name: string;
  readonly what: string;
  readonly cutAt?: RegExp;
  /** Patterns for the line "over a reboot", by the name of the result. */
  readonly armed?: Readonly<Record<string, RegExp>>;
  /** The images are compared with the files of the devices. */
  readonly compares?: true;
  /** The expected result of each volume. Undefined: a first boot. */
  readonly volumes?: Readonly<Record<Name, Expected>>;
}

const same = (expected: Expected): Record<Name, Expected> =>
  Object.fromEntries(names.map((name) => [name, expected])) as Record<Name, Expected>;
const detached = /detached before it could be recorded/;
/**
 * If the early unit was not started, the quicker unit decides: see docs/tracking.md, "Volumes that are closed
 * early".
 */
const closedEarly: Partial<Record<Name, Expected>> = {
  ...{ crypt: ['continues', detached], other: ['continues', detached], md: ['continues', detached] },
};
const armed = /^yes: the next clean shutdown is recorded and used$/;

const steps: readonly Step[] = [
  {
    name: 'first',
    what: 'installed; dattod-early enabled, not started; full backups; reboot',
    armed: { tracking: armed },
  },
  {
    name: 'second',
    what: 'after the first shutdown; record in a file, then on a device; reboot',
    armed: { tracking: armed, 'tracking-no-hook': /^yes: .*root is not: the hook is missing$/ },
    volumes: { ...same('continues'), root: /still mounted for writing at \//, ...closedEarly },
  },
  {
    name: 'third',
    compares: true,
    what: 'after a shutdown with the record on a device: saved three times; reboot',
    armed: { tracking: armed },
    volumes: same('continues'),
  },
  {
    name: 'fourth',
    compares: true,
    what: 'once more; then the power is cut',
    cutAt: /^cut\t/m,
    armed: { tracking: armed },
    volumes: same('continues'),
  },
  {
    name: 'fifth',
    compares: true,
    what: 'after the power cut; the time limit of the early unit set to 2 s; reboot',
    armed: { tracking: armed },
    volumes: same(/there is no record of a clean shutdown/),
  },
  {
    name: 'sixth',
    compares: true,
    what: 'the early unit was killed by its time limit; limit as before; reboot',
    armed: { tracking: /^yes: .*; dattod-early-root\.service failed in this boot \(timeout\)$/ },
    volumes: same(/its record was not used before .* time limit|did not continue it: it was ended before/),
  },
  {
    name: 'seventh',
    compares: true,
    what: 'after a shutdown without the early unit: recorded by dattod-save and the hook',
    armed: { tracking: armed },
    volumes: { ...same('continues'), ...closedEarly },
  },
];

interface Found {
  readonly problems: readonly string[];
  readonly rows: readonly string[];
}

const options = parseArgs({
  options: {
    work: { type: 'string' },
    from: { type: 'string', default: 'first' },
    to: { type: 'string', default: 'seventh' },
    volumes: { type: 'string', default: names.join() },
  },
}).values;
const chosen = names.filter((name) => options.volumes.split(',').includes(name));
process.exitCode = (await campaign()) ? 0 : 1;

async function campaign(): Promise<boolean> {
  await checkNeeds();
  const say = (line: string): void => console.log(line);
  const base = await prepareDebian((line) => say(`preparing: ${line}`));
  const work = options.work ?? (await mkdtemp(join(tmpdir(), 'dattod-continuity-')));
  await mkdir(work, { recursive: true });
  const begin = steps.findIndex(({ name }) => name === options.from);
  const end = steps.findIndex(({ name }) => name === options.to) + 1;
  if (begin < 0 || end === 0)
    throw new Error(`--from and --to must be of ${steps.map(({ name }) => name).join(', ')}`);
  try {
    if (begin === 0)
      for (const [from, to] of [
        [base.system, 'sys.img'],
        [base.store, 'store.img'],
      ] as const)
        await exec('cp', ['--sparse=always', '--reflink=auto', from, join(work, to)], { timeoutMs: 600_000 });
    await makePayload(work);
    let good = true;
    for (const step of steps.slice(begin, end)) {
      const result = await bootStep(base, work, step);
      await writeFile(join(work, `${step.name}.console`), result.console);
      await writeFile(join(work, `${step.name}.results`), result.results);
      const { problems, rows } = judge(step, resultsOf(result.results));
      say(`\n## ${step.name}: ${step.what} (${result.seconds} s)\n`);
      for (const row of rows) say(row);
      for (const problem of problems) say(`PROBLEM: ${problem}`);
      good &&= problems.length === 0;
    }
    say(good ? '\nall as expected' : '\nNOT as expected');
    return good;
  } finally {
    if (options.work === undefined) await rm(work, { recursive: true, force: true });
  }
}

async function checkNeeds(): Promise<void> {
  const missing: string[] = [];
  if (process.getuid?.() !== 0) missing.push('root');
  if (!existsSync(join(repository, 'build/dattod'))) missing.push('build/: run ./one_step_build');
  for (const [program, name] of Object.entries(programs))
    await exec('which', [program]).catch(() => missing.push(`${program}: apt-get install ${name}`));
  if (missing.length > 0) throw new Error(`this needs: ${missing.join('; ')}`);
}

/** Makes a disk with the agent and the script of the steps. */
async function makePayload(work: string): Promise<void> {
  const folder = join(work, 'payload');
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder);
  for (const name of ['build', 'packaging'])
    await cp(join(repository, name), join(folder, name), { recursive: true });
  await cp(join(import.meta.dirname, 'guest/step.sh'), join(folder, 'step.sh'));
  const image = join(work, 'payload.img');
  await makeImage(image, 512 * MiB);
  await exec('mke2fs', ['-q', '-F', '-t', 'ext4', '-L', 'payload', '-d', folder, image], {
    timeoutMs: 300_000,
  });
  await rm(folder, { recursive: true });
}

/** Boots again if the emulated machine died before the step began. */
async function bootStep(base: Base, work: string, step: Step): Promise<MachineResult> {
  for (let boot = 1; ; boot++) {
    const result = await bootMachine({
      ...{ kernel: base.kernel, initrd: base.initrd, deadlineMs },
      append: `root=/dev/mapper/vg0-root ro machine.step=${step.name} machine.volumes=${chosen.join()}`,
      drives: ['sys.img', 'store.img', 'payload.img'].map((name) => ({ file: join(work, name) })),
      ...(step.cutAt === undefined ? {} : { cutAt: step.cutAt }),
    });
    if (boot === 2 || result.results !== '' || !/Kernel panic/.test(result.console)) return result;
    console.log(`${step.name}: the emulated machine died at its start, and is booted again`);
  }
}

function resultsOf(text: string): Map<string, string[]> {
  const results = new Map<string, string[]>();
  for (const line of text.split('\n').filter((each) => each.includes('\t'))) {
    const [name, ...rest] = line.replace(/\r$/, '').split('\t');
    results.set(name!, [...(results.get(name!) ?? []), rest.join('\t')]);
  }
  return results;
}

function judge(step: Step, results: ReadonlyMap<string, readonly string[]>): Found {
  const problems = [...(results.get('failed') ?? [])];
  const rows: string[] = [];
  for (const [name, expected] of Object.entries(step.armed ?? {})) {
    const { continuity } = JSON.parse(results.get(name)?.[0] ?? '{}') as Partial<TrackingDocument>;
    const said =
      continuity === undefined ? 'nothing' : `${continuity.armed ? 'yes' : 'no'}: ${continuity.why}`;
    rows.push(`over a reboot (${name}): ${said}`);
    if (!expected.test(said)) problems.push(`"${said}" is not ${String(expected)}`);
  }
  const jobs = (['volumes', 'root'] as const).map((name) => results.get(`job-${name}`)?.[0] ?? '');
  const devices = jobs
    .filter((text) => text !== '')
    .flatMap((text) => {
      const job = JSON.parse(text) as JobStatus;
      if (job.state !== 'SUCCEEDED') problems.push(`the job was ${text}`);
      return job.devices;
    });
  rows.push('', '| volume | was | reason | sent | files |', '| --- | --- | --- | --- | --- |');
  for (const name of chosen) {
    const device = devices.find(({ target }) => target === `/srv/store/${name}.img`);
    const reason = device?.fallback_reason ?? '';
    const compared = results.get(`compare-${name}`)?.[0] ?? 'not compared';
    rows.push(
      `| ${name} | ${device?.kind ?? '-'} | ${reason} | ${((device?.bytes_sent ?? 0) / MiB).toFixed(1)} MiB | ${compared} |`,
    );
    if (step.volumes === undefined) continue;
    if (step.compares === true && compared !== 'same')
      problems.push(`${name}: the files of the image are ${compared}`);
    const wanted = step.volumes[name];
    const all = Array.isArray(wanted) ? (wanted as readonly (RegExp | 'continues')[]) : [wanted as RegExp];
    const right = all.some((each) =>
      each === 'continues'
        ? device?.kind === 'incremental'
        : device?.kind === 'differential' && each.test(reason),
    );
    if (!right)
      problems.push(
        `${name}: ${device?.kind ?? 'nothing'}, "${reason}", not ${all.map(String).join(' or ')}`,
      );
  }
  return { problems, rows };
}
