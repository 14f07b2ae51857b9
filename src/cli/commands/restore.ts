/** `restore POINT --to …`, and `restore --files POINT PATH… --to DIR`. */
import { Command, Option } from 'commander';
import { join } from 'node:path';
import { formatBytes } from '../../base/bytes.ts';
import { formatDuration } from '../../base/duration.ts';
import { AgentError } from '../../base/errors.ts';
import type { RestoreProgress, RestoreResult } from '../../restore/target/to-target.ts';
import type { Context, Run } from '../context.ts';
import { exitWithWarnings } from '../outcome.ts';
import type { ProgressUpdate } from '../render/progress-reporter.ts';
import { printable, renderList } from '../render/table.ts';
import type { RestoreDocument, RestoreFilesDocument } from '../../api/vault/output/recovery.ts';
import { type NamedImage, namedImage } from '../vault/image.ts';
import {
  type VaultValues,
  addDeviceOption,
  addRunDirectory,
  addVaultOptions,
  pointArgument,
  toCount,
  toPath,
} from '../vault/options.ts';
import { bytesUpdate, withProgress } from '../vault/progress.ts';
import { withVault } from '../vault/session.ts';

interface Values extends VaultValues {
  readonly to?: string;
  readonly files?: true;
  readonly device?: string;
  readonly partition?: number;
  readonly overwrite?: true;
  readonly force?: string;
  readonly compare?: 'auto' | 'always' | 'never';
  readonly zeroUnused?: true;
  readonly salvage?: true;
  /** False for --no-verify. */
  readonly verify: boolean;
  readonly runDir: string;
}

export function restore(run: Run): Command {
  const command = new Command('restore')
    .description(
      'Restores a device of a recovery point to a device, an image file or an NBD export. With ' +
        '--files: restores files and directories to a directory. If the destination holds data, ' +
        '--force must repeat its name. Writes only what differs, then reads it back. If interrupted, ' +
        'run it again to continue.',
    )
    .argument(...pointArgument)
    .argument('[path...]', 'with --files: paths in the filesystem; / restores all of it')
    .option('--to <where>', 'device, file or nbd:// URI; with --files a directory')
    .option('--files', 'restore files with owners, modes, times, attributes, ACLs, links and holes');
  addDeviceOption(command)
    .option('--force <name>', 'overwrite the data on the destination; repeat its name here')
    .addOption(
      new Option('--compare <when>', 'read the destination and write only what differs (auto)').choices([
        'auto',
        'always',
        'never',
      ]),
    )
    .option('--zero-unused', 'write zeros to blocks that the filesystem does not use')
    .option('--salvage', 'restore the rest if the vault has lost data; lost data becomes zeros')
    .option('--no-verify', 'do not read back the written data')
    .option('--partition <number>', 'with --files: partition of a whole disk', toCount('--partition'))
    .option('--overwrite', 'with --files: replace files of the same name in a directory that is not empty');
  return addRunDirectory(addVaultOptions(command)).action(run(restorePoint));
}

async function restorePoint(context: Context, self: Command): Promise<number> {
  const [name = '', ...paths] = self.args;
  const values = self.opts<Values>();
  if (values.to === undefined) throw new AgentError('BAD_USAGE', '--to DESTINATION is missing');
  if (values.files === true) return restoreSome(context, self, name, paths, values.to, values);
  if (paths.length > 0)
    throw new AgentError('BAD_USAGE', `unexpected argument "${paths[0] ?? ''}"`, {
      hint: 'to restore paths to the directory --to, add --files',
    });
  const wrong = (['partition', 'overwrite'] as const).find((each) => values[each] !== undefined);
  if (wrong !== undefined) throw new AgentError('BAD_USAGE', `--${wrong} needs --files`);
  const { parseDestination, restoreToTarget } = await import('../vault/restore-library.ts');
  const to = parseDestination(values.to);
  const document = await withVault(context, self, (session) =>
    withProgress(context, async (show) => {
      const image = await namedImage(session, name, values.device);
      const { point, device, spec } = image;
      const result = await restoreToTarget({
        image: spec,
        imageId: `${point.id} ${device.path}`,
        sectorSize: device.sector_size,
        usedBytes: device.used_bytes,
        to,
        unfinishedDirectory: join(values.stateDir, 'restores'),
        compare: values.compare ?? 'auto',
        zeroUnused: values.zeroUnused === true,
        salvage: values.salvage === true,
        verify: values.verify,
        signal: session.signal,
        force: values.force,
        onProgress: (progress) => {
          // A refused restore prints one line only. The check of an interrupted restore may take long, so it shows
          // progress.
          if (progress.phase !== 'checking' || progress.total !== undefined) show(updateOf(progress));
        },
      });
      return restoreDocument(image, result);
    }),
  );
  context.print(document, () => renderRestored(document));
  if (!context.json) context.io.err(renderRestoreWarnings(document));
  return document.warnings.length > 0 || document.lost.length > 0 ? exitWithWarnings : 0;
}

function updateOf({ phase, done, total, written, rate }: RestoreProgress): ProgressUpdate {
  if (phase === 'finishing') return { phase, fraction: undefined, parts: [] };
  const more = phase === 'restoring' ? [`${Math.round(written / 2 ** 20)} MiB written`] : [];
  return bytesUpdate(phase, done, total, rate, more);
}

function restoreDocument({ point, device }: NamedImage, result: RestoreResult): RestoreDocument {
  const { size, written, equal, zeroed, left, verified, lost, warnings, seconds } = result;
  return {
    point: point.id,
    device: device.path,
    to: result.destination,
    ...{ size, written, equal, zeroed, left, verified },
    lost: lost.map(({ offset, length, reason }) => ({ offset, length, reason })),
    warnings: [...warnings],
    table_moved: result.tableMoved,
    partitions_reread: result.partitionsReread ?? null,
    seconds,
  };
}

async function restoreSome(
  context: Context,
  self: Command,
  name: string,
  paths: readonly string[],
  to: string,
  values: Values,
): Promise<number> {
  if (paths.length === 0)
    throw new AgentError('BAD_USAGE', 'Paths to restore are missing', {
      hint: 'run restore --files POINT PATH… --to DIR; / restores everything',
    });
  const wrong = (['force', 'compare', 'zeroUnused', 'salvage'] as const).find(
    (each) => values[each] !== undefined,
  );
  if (wrong !== undefined)
    throw new AgentError(
      'BAD_USAGE',
      `${wrong === 'zeroUnused' ? '--zero-unused' : `--${wrong}`} cannot be used with --files`,
    );
  const { clearMounts, restoreFiles } = await import('../vault/restore-library.ts');
  const runDirectory = values.runDir;
  const document = await withVault(context, self, async (session) => {
    await clearMounts(runDirectory);
    const { point, device, spec } = await namedImage(session, name, values.device);
    const restored = await restoreFiles({
      image: spec,
      subject: { point: point.id, device: device.path },
      sectorSize: device.sector_size,
      partition: values.partition,
      runDirectory,
      paths,
      to: toPath(to),
      overwrite: values.overwrite === true,
      signal: session.signal,
    });
    const result: RestoreFilesDocument = {
      point: point.id,
      device: device.path,
      to: toPath(to),
      paths: restored.paths,
      seconds: restored.seconds,
    };
    return result;
  });
  context.print(document, () => renderRestoredFiles(document));
  return 0;
}

function renderRestored(done: RestoreDocument): string {
  const entries: [string, string][] = [
    ['restored', `${done.device} of ${done.point} to ${done.to}`],
    ['size', formatBytes(done.size)],
    ['written', formatBytes(done.written)],
    ['equal', `${formatBytes(done.equal)}, not written`],
  ];
  if (done.zeroed > 0) entries.push(['zeroed', formatBytes(done.zeroed)]);
  if (done.left > 0) entries.push(['unused', `${formatBytes(done.left)}, left as it was`]);
  entries.push(['read back', done.verified === 0 ? 'nothing' : `${formatBytes(done.verified)}, as written`]);
  if (done.table_moved) entries.push(['table', 'backup GPT moved to the end of the larger disk']);
  if (done.partitions_reread === false)
    entries.push(['partitions', 'the kernel still uses the old ones; run partprobe or reboot']);
  entries.push(['took', formatDuration(done.seconds * 1000)]);
  return renderList(entries);
}

function renderRestoreWarnings({ lost, warnings }: RestoreDocument): string {
  return [
    ...warnings.map((text) => `warning: ${printable(text)}\n`),
    ...lost.map(
      ({ offset, length, reason }) => `lost: ${length} bytes at ${offset} are zeros: ${printable(reason)}\n`,
    ),
  ].join('');
}

function renderRestoredFiles({ point, device, to, paths, seconds }: RestoreFilesDocument): string {
  const list = paths.map((path) => `${printable(path)}\n`).join('');
  return `${list}restored from ${printable(device)} of ${point} to ${printable(to)} in ${formatDuration(seconds * 1000)}\n`;
}
