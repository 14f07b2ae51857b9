/** `restore POINT --to …`, and `restore --files POINT PATH… --to DIR`. */
import type { Command } from 'commander';
import { join } from 'node:path';
import { AgentError } from '../../base/errors.ts';
import { restoreFiles } from '../../restore/files.ts';
import { clearMounts } from '../../restore/mount/mount.ts';
import { parseDestination } from '../../restore/target/check.ts';
import { type RestoreProgress, type RestoreResult, restoreToTarget } from '../../restore/target/to-target.ts';
import type { Context } from '../context.ts';
import { exitWithWarnings } from '../outcome.ts';
import type { Reading } from '../render/meter.ts';
import { type NamedImage, namedImage } from './image.ts';
import { type VaultValues, toPath } from '../vault-options.ts';
import { bytesReading, withMeter } from './progress.ts';
import { renderRestoredFiles, renderRestored, renderRestoreWarnings } from './render-restore.ts';
import { withVault } from './session.ts';
import type { RestoreDocument, RestoreFilesDocument } from './documents.ts';

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

export async function restore(context: Context, self: Command): Promise<number> {
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
  const to = parseDestination(values.to);
  const document = await withVault(context, self, (session) =>
    withMeter(context, async (show) => {
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
          if (progress.phase !== 'checking' || progress.total !== undefined) show(readingOf(progress));
        },
      });
      return restoreDocument(image, result);
    }),
  );
  context.print(document, () => renderRestored(document));
  if (!context.json) context.io.err(renderRestoreWarnings(document));
  return document.warnings.length > 0 || document.lost.length > 0 ? exitWithWarnings : 0;
}

function readingOf({ phase, done, total, written, rate }: RestoreProgress): Reading {
  if (phase === 'finishing') return { phase, fraction: undefined, parts: [] };
  const more = phase === 'restoring' ? [`${Math.round(written / 2 ** 20)} MiB written`] : [];
  return bytesReading(phase, done, total, rate, more);
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
