/** `forget`: forgets points by rules or by ID. `--protect` and `--unprotect` keep points from being forgotten. */
import type { Command } from 'commander';
import { AgentError } from '../../base/errors.ts';
import { standingDamage } from '../../vault/points/standing-damage.ts';
import { filterPoints, idsBeginningWith, isLatest } from '../../vault/points/find.ts';
import { listKeys } from '../../vault/points/objects.ts';
import {
  findPoint,
  forgetPoint,
  listPoints,
  listProtected,
  protectPoint,
  unprotectPoint,
} from '../../vault/points/points.ts';
import { DeviceIdentities } from '../../vault/points/identity.ts';
import {
  type RetentionGroup,
  type RetentionRules,
  choosePoints,
  defaultGrace,
} from '../../vault/points/retention.ts';
import { storeClock } from '../../vault/store-clock.ts';
import { exitWithWarnings } from '../outcome.ts';
import type { Context } from '../context.ts';
import type { VaultValues } from '../vault-options.ts';
import { readFacts } from './points.ts';
import { renderForgotten, renderGroups } from './render-forget.ts';
import { type Session, withVault } from './session.ts';
import type { ForgetDocument } from './documents.ts';

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

export async function forget(context: Context, self: Command): Promise<number> {
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
  const keys = await listKeys(vault, 'points/', /^points\/[0-9a-f]{32}$/, { signal });
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
function clockFor({ vault, signal }: Session, dryRun: boolean): Promise<number> {
  return dryRun ? Promise.resolve(Date.now()) : storeClock(vault, 'to forget recovery points', { signal });
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
