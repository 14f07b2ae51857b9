/** `forget`: forgets points by rules or by ID. `--protect` and `--unprotect` keep points from being forgotten. */
import { Command } from 'commander';
import { parseDuration } from '../../base/duration.ts';
import { AgentError } from '../../base/errors.ts';
import type { RetentionGroup, RetentionRules } from '../../vault/points/retention.ts';
import type { Context, Run } from '../context.ts';
import { exitWithWarnings } from '../outcome.ts';
import { localTime } from '../render/local-time.ts';
import { printable, renderTable } from '../render/table.ts';
import type { ForgetDocument } from '../../api/vault/output/points.ts';
import { type VaultValues, addVaultOptions, pointArgument, toCount } from '../vault/options.ts';
import { digitsNeeded } from '../vault/point-digits.ts';
import { type Session, withVault } from '../vault/session.ts';

interface Values extends VaultValues {
  readonly device?: string;
  readonly machine?: string;
  readonly dryRun?: true;
  readonly protect?: true;
  readonly unprotect?: true;
  readonly keepLast?: number;
  readonly keepHourly?: number;
  readonly keepDaily?: number;
  readonly keepWeekly?: number;
  readonly keepMonthly?: number;
  readonly keepYearly?: number;
  /** In milliseconds. */
  readonly grace?: number;
  readonly trustTimes?: true;
}

export function forget(run: Run): Command {
  const command = new Command('forget')
    .description(
      'Forgets the given recovery points, or all points that no rule keeps. A rule keeps the last ' +
        'point of each of the last N hours (days, …) that have a point, for each machine and set of ' +
        'devices. Run vault prune to free the space.',
    )
    .argument('[point...]', pointArgument[1])
    .option('--keep-last <n>', 'keep the last N points', toCount('--keep-last'))
    .option('--keep-hourly <n>', 'keep the last point of N hours', toCount('--keep-hourly'))
    .option('--keep-daily <n>', 'keep the last point of N days', toCount('--keep-daily'))
    .option('--keep-weekly <n>', 'keep the last point of N weeks', toCount('--keep-weekly'))
    .option('--keep-monthly <n>', 'keep the last point of N months', toCount('--keep-monthly'))
    .option('--keep-yearly <n>', 'keep the last point of N years', toCount('--keep-yearly'))
    .option('--device <name>', 'with rules: only points with this device')
    .option('--machine <name>', 'with rules: only points of this machine')
    .option(
      '--grace <time>',
      'with rules: a point that arrived less than this ago displaces no other (24h); 0 for none',
      (text) => parseDuration(text, '--grace'),
    )
    .option('--trust-times', 'with rules: trust point times that differ from store times, for a copied vault')
    .option('--dry-run', 'only show what would be forgotten')
    .option('--protect', 'instead: protect these points from being forgotten')
    .option('--unprotect', 'instead: remove the protection of these points');
  return addVaultOptions(command).action(run(forgetPoints));
}

async function forgetPoints(context: Context, self: Command): Promise<number> {
  const values = self.opts<Values>();
  const rules = rulesOf(values);
  const names = self.args;
  checkUsage(names, rules, values);
  const document = await withVault(context, self, (session) =>
    rules === undefined ? byName(session, names, values) : byRules(session, rules, values),
  );
  context.print(document, () => renderGroups(document) + renderForgotten(document));
  return document.damaged.length > 0 ? exitWithWarnings : 0;
}

function rulesOf(values: Values): RetentionRules | undefined {
  const rules: RetentionRules = {
    ...(values.keepLast === undefined ? {} : { last: values.keepLast }),
    ...(values.keepHourly === undefined ? {} : { hourly: values.keepHourly }),
    ...(values.keepDaily === undefined ? {} : { daily: values.keepDaily }),
    ...(values.keepWeekly === undefined ? {} : { weekly: values.keepWeekly }),
    ...(values.keepMonthly === undefined ? {} : { monthly: values.keepMonthly }),
    ...(values.keepYearly === undefined ? {} : { yearly: values.keepYearly }),
  };
  return Object.keys(rules).length === 0 ? undefined : rules;
}

function checkUsage(names: readonly string[], rules: RetentionRules | undefined, values: Values): void {
  const { protect, unprotect, device, machine, dryRun } = values;
  const wrong = (message: string, hint: string): AgentError => new AgentError('BAD_USAGE', message, { hint });
  if (names.length === 0 && rules === undefined)
    throw wrong('No points and no rules are given', 'give points, or rules such as --keep-daily 14');
  if (names.length > 0 && rules !== undefined)
    throw wrong('Both points and rules are given', 'give either points or rules');
  if (protect === true && unprotect === true)
    throw wrong('Both --protect and --unprotect are given', 'give one of them');
  if (rules !== undefined && (protect === true || unprotect === true))
    throw wrong('--protect and --unprotect need points, not rules', 'give the points instead of rules');
  if (rules === undefined && (device !== undefined || machine !== undefined))
    throw wrong('--device and --machine need rules', 'omit them if you give points');
  if (rules === undefined && (values.grace !== undefined || values.trustTimes === true))
    throw wrong('--grace and --trust-times need rules', 'omit them if you give points');
  if ((protect === true || unprotect === true) && dryRun === true)
    throw wrong('--dry-run cannot be used with --protect or --unprotect', 'omit --dry-run');
}

async function byName(
  session: Session,
  names: readonly string[],
  { protect, unprotect, dryRun }: Values,
): Promise<ForgetDocument> {
  const { forgetPoint, listProtected, protectPoint, unprotectPoint } = await import('../vault/library.ts');
  const { vault, signal } = session;
  const ids = await idsOf(session, names);
  if (protect === true) {
    for (const id of ids) await protectPoint(vault, id, { signal });
    return { ...nothing, protected: ids };
  }
  if (unprotect === true) {
    for (const id of ids) await unprotectPoint(vault, id, { signal });
    return { ...nothing, unprotected: ids };
  }
  // All points are checked before the first one is forgotten.
  const kept = await listProtected(vault, { signal });
  const held = ids.find((id) => kept.has(id));
  if (held !== undefined)
    throw new AgentError(
      'POINT_PROTECTED',
      `The recovery point ${held} of ${vault.name} is protected: nothing was forgotten`,
      {
        hint: `run dattocli forget --unprotect ${held} to remove the protection`,
      },
    );
  if (dryRun !== true) for (const id of ids) await forgetPoint(vault, id, { signal });
  return { ...nothing, dry_run: dryRun === true, forgotten: ids };
}

const nothing: ForgetDocument = {
  ...{ dry_run: false, forgotten: [], protected: [], unprotected: [], groups: [], damaged: [] },
};

/** Compares object keys only, so that unreadable points can be forgotten too. */
async function idsOf({ vault, signal }: Session, names: readonly string[]): Promise<string[]> {
  const { findPoint, idsBeginningWith, isLatest, listObjectKeys } = await import('../vault/library.ts');
  const keys = await listObjectKeys(vault, 'points/', /^points\/[0-9a-f]{32}$/, { signal });
  const all = keys.map((key) => key.slice('points/'.length));
  const ids = new Set<string>();
  for (const name of names) {
    if (isLatest(name)) {
      ids.add((await findPoint(vault, name, {}, { signal })).id);
      continue;
    }
    const [id, another] = idsBeginningWith(all, name);
    if (id === undefined)
      throw new AgentError('POINT_NOT_FOUND', `${vault.name} has no recovery point ${name}`, {
        hint: 'run dattocli points to list the points',
      });
    if (another !== undefined)
      throw new AgentError('POINT_AMBIGUOUS', `More than one recovery point ID begins with ${name}`, {
        hint: 'give more digits of the ID',
      });
    ids.add(id);
  }
  return [...ids];
}

async function byRules(session: Session, rules: RetentionRules, values: Values): Promise<ForgetDocument> {
  const library = await import('../vault/library.ts');
  const { DeviceIdentities, choosePoints, defaultGrace, filterPoints } = library;
  const { forgetPoint, listPoints, readFacts, standingDamage } = library;
  const { vault, signal } = session;
  const { device, machine, dryRun, grace = defaultGrace, trustTimes } = values;
  const { points, damaged, stored } = await listPoints(vault, { signal });
  const facts = await readFacts(vault, signal);
  const groups = choosePoints(filterPoints(points, { device, machine }), rules, {
    now: Date.now(),
    vaultCreated: Date.parse(vault.config.created),
    identities: new DeviceIdentities(points),
    ...(trustTimes === true ? {} : { stored }),
    ...(grace > 0
      ? { grace: { ms: grace, stored, storeNow: await clockFor(session, dryRun === true) } }
      : {}),
    protected: facts.protected,
    damaged: new Set(standingDamage(facts.checks).map(({ point }) => point)),
  });
  const ids = groups.flatMap((group) => group.forget.map(({ id }) => id));
  if (dryRun !== true) for (const id of ids) await forgetPoint(vault, id, { signal });
  return {
    ...nothing,
    dry_run: dryRun === true,
    forgotten: ids,
    groups: groups.map(groupDocument),
    damaged: damaged.map(({ key, error }) => ({ key, message: error.message })),
  };
}

/** A dry run writes nothing, so this machine's clock is sufficient. */
async function clockFor({ vault, signal }: Session, dryRun: boolean): Promise<number> {
  if (dryRun) return Date.now();
  const { storeClock } = await import('../vault/library.ts');
  return storeClock(vault, 'to forget recovery points', { signal });
}

function groupDocument({
  machine,
  devices,
  keep,
  forget: goes,
}: RetentionGroup): ForgetDocument['groups'][0] {
  return {
    machine,
    devices,
    keep: keep.map(({ point, reasons }) => ({ point: point.id, finished: point.finished, reasons })),
    forget: goes.map(({ id, finished }) => ({ point: id, finished })),
  };
}

/**
 * Renders one table per machine and set of devices. Each row is a point with the reason why it is kept or forgotten.
 */
export function renderGroups({ groups, dry_run: dry }: ForgetDocument): string {
  const digits = digitsNeeded(
    groups.flatMap(({ keep, forget }) => [...keep, ...forget].map(({ point }) => point)),
  );
  const gone = dry ? 'would be forgotten' : 'forgotten';
  return groups
    .map(({ machine, devices, keep, forget }) => {
      const rows = [
        ...keep.map(({ point, finished, reasons }) => ({ point, finished, what: reasons.join(', ') })),
        ...forget.map(({ point, finished }) => ({ point, finished, what: gone })),
      ].sort((a, b) => Date.parse(b.finished) - Date.parse(a.finished));
      const table = renderTable(
        [{ title: 'point' }, { title: 'finished' }, { title: 'kept by' }],
        rows.map(({ point, finished, what }) => [point.slice(0, digits), localTime(finished), what]),
      );
      return `${printable(machine)}: ${devices.map(printable).join(' ')}\n${table}\n`;
    })
    .join('');
}

export function renderForgotten(document: ForgetDocument): string {
  const { forgotten, dry_run: dry, damaged } = document;
  const lines = [
    ...document.protected.map((id) => `${id} is protected`),
    ...document.unprotected.map((id) => `${id} is no longer protected`),
  ];
  if (lines.length === 0) {
    const points = forgotten.length === 1 ? '1 recovery point' : `${forgotten.length} recovery points`;
    lines.push(
      forgotten.length === 0
        ? 'nothing to forget'
        : dry
          ? `${points} would be forgotten`
          : `${points} forgotten; run dattocli vault prune to free the space`,
    );
  }
  lines.push(...damaged.map(({ key, message }) => `damaged, not touched: ${key}: ${printable(message)}`));
  return `${lines.join('\n')}\n`;
}
