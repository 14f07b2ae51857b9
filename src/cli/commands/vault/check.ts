/** `vault check [--repair]`: lists damaged data, the points that it affects, and the points that are whole. */
import type { CheckDocument } from '../../../api/vault/output/upkeep.ts';
import { Command } from 'commander';
import { formatBytes } from '../../../base/bytes.ts';
import { AgentError } from '../../../base/errors.ts';
import { reportError } from '../../../base/report.ts';
import type { CheckResult, CheckStep } from '../../../vault/check/check-vault.ts';
import type { Context, Run } from '../../context.ts';
import { localTime } from '../../render/local-time.ts';
import type { ProgressUpdate } from '../../render/progress-reporter.ts';
import { printable, renderList } from '../../render/table.ts';
import { type VaultValues, addVaultOptions, toShare } from '../../vault/options.ts';
import { countUpdate, withProgress } from '../../vault/progress.ts';
import { withVault } from '../../vault/session.ts';

interface Values extends VaultValues {
  readonly readData?: true;
  readonly sample?: number;
  readonly repair?: true;
}

export function check(run: Run): Command {
  const command = new Command('check')
    .description(
      'Checks all packs and points of a vault. Lists damaged and missing data, the points that it ' +
        'affects, and the points that are whole. Changes nothing without --repair.',
    )
    .option('--read-data', 'also decrypt and verify every chunk')
    .option(
      '--sample <share>',
      'with --read-data: check only this share of the packs, like 5%',
      toShare('--sample'),
    )
    .option('--repair', 'store readable data of damaged packs again and condemn those packs; reads all data');
  return addVaultOptions(command).action(run(checkThis));
}

async function checkThis(context: Context, self: Command): Promise<number> {
  const { readData, sample, repair } = self.opts<Values>();
  if (sample !== undefined && readData !== true)
    throw new AgentError('BAD_USAGE', '--sample needs --read-data');
  if (repair === true && sample !== undefined)
    throw new AgentError('BAD_USAGE', '--repair reads all data and cannot be used with --sample');
  const { checkVault, repairVault } = await import('../../vault/library.ts');
  const { document, name } = await withVault(context, self, ({ vault, opened, index, signal }) =>
    withProgress(context, async (show) => {
      const progress = (step: CheckStep, done: number, total?: number) => show(updateOf(step, done, total));
      if (repair !== true) {
        const result = await checkVault(vault, index(), { readData, sample, signal, progress });
        return { document: checkDocument(result, null), name: vault.name };
      }
      const { before, after, condemned, salvaged } = await repairVault(vault, index(), {
        level: opened.level,
        signal,
        progress,
      });
      const done: CheckDocument['repair'] = {
        damaged_before: before.points.filter(({ whole }) => !whole).length,
        condemned_packs: condemned,
        salvaged_parts: salvaged.parts,
        salvaged_bytes: salvaged.bytes,
      };
      return { document: checkDocument(after, done), name: vault.name };
    }),
  );
  context.print(document, () => renderCheck(document));
  if (document.ok) return 0;
  const report = reportError('dattocli', damageOf(document, name, repair === true), { json: context.json });
  context.io.err(`${report.line}\n`);
  return report.exitCode;
}

function updateOf(step: CheckStep, done: number, total?: number): ProgressUpdate {
  return countUpdate('checking', step, done, total);
}

function damageOf(document: CheckDocument, name: string, repaired: boolean): AgentError {
  const hurt = document.points.filter(({ whole }) => !whole).length;
  const points =
    hurt === 0 ? 'all its points are whole' : `${hurt} of ${document.points.length} points are not whole`;
  return new AgentError('VAULT_DAMAGED', `${name} is damaged; ${points}`, {
    hint: repaired
      ? 'run a backup of the affected machines: it stores lost data again if it reads it; or put ' +
        'packs back from a copy of the vault'
      : 'run dattocli vault check --repair to save the data that is readable; put missing packs back ' +
        'from a copy of the vault',
  });
}

function checkDocument(result: CheckResult, repair: CheckDocument['repair']): CheckDocument {
  const { ok, packs, bytes, coverage, foreign } = result;
  return {
    ...{ ok, packs, bytes, coverage, foreign, repair },
    damaged_packs: result.damagedPacks.map(({ pack, reason, parts, condemned }) => ({
      ...{ pack, reason, condemned },
      parts: parts ?? null,
    })),
    missing_packs: result.missingPacks,
    damaged_objects: result.damagedObjects.map(({ key, reason }) => ({ key, reason })),
    points: result.points.map(({ point, finished, machine, whole, devices }) => ({
      ...{ point, finished, machine, whole },
      devices: devices.map((device) => ({
        device: device.path,
        size: device.size,
        whole: device.whole,
        lost_bytes: device.lostBytes,
        lost: device.lost.map(({ offset, length }) => ({ offset, length })),
        more_lost: device.moreLost,
      })),
    })),
  };
}

const shownRanges = 5;

export function renderCheck(check: CheckDocument): string {
  const { points, coverage, repair } = check;
  const whole = points.filter((point) => point.whole).length;
  const read =
    coverage === 0
      ? 'pack headers and directories only'
      : `${Math.floor(coverage * 1000) / 10}% of the data verified`;
  const entries: [string, string][] = [
    ['packs', `${check.packs}, ${formatBytes(check.bytes)}, ${read}`],
    ['points', `${points.length}, of which whole: ${whole}`],
    ['verdict', check.ok ? 'no damage' : 'damaged'],
  ];
  if (repair !== null)
    entries.push([
      'repaired',
      `${repair.condemned_packs.length} packs condemned, ${repair.salvaged_parts} parts (${formatBytes(repair.salvaged_bytes)}) ` +
        `stored again; points that were not whole: ${repair.damaged_before}`,
    ]);
  const lines = [
    ...check.damaged_packs.map(
      ({ pack, reason, condemned }) => `damaged pack ${pack}${condemned ? ' (condemned)' : ''}: ${reason}`,
    ),
    ...check.missing_packs.map((pack) => `missing pack ${pack}`),
    ...check.damaged_objects.map(({ key, reason }) => `damaged object ${key}: ${reason}`),
    ...points.filter((point) => !point.whole).flatMap(lossLines),
    ...(whole === points.length ? [] : points.filter((point) => point.whole).map(wholeLine)),
    ...check.foreign.map((name) => `foreign, ignored: ${name}`),
  ];
  return `${renderList(entries)}${lines.map((line) => `${printable(line)}\n`).join('')}`;
}

function wholeLine({ point, finished, machine }: CheckDocument['points'][number]): string {
  return `whole: point ${point} of ${machine}, ${localTime(finished)}`;
}

function lossLines({ point, finished, machine, devices }: CheckDocument['points'][number]): string[] {
  return devices
    .filter((device) => !device.whole)
    .map((device) => {
      const ranges = device.lost
        .slice(0, shownRanges)
        .map(({ offset, length }) => `${length} bytes at ${offset}`)
        .join(', ');
      const more = device.more_lost || device.lost.length > shownRanges ? ', …' : '';
      return (
        `not whole: point ${point} of ${machine}, ${localTime(finished)}: ${device.device} has lost ` +
        `${formatBytes(device.lost_bytes)} of ${formatBytes(device.size)} (${ranges}${more})`
      );
    });
}
