/** Renders the result of `restore` for people. */
import { formatBytes } from '../../base/bytes.ts';
import { formatDuration } from '../../base/duration.ts';
import { printable, renderList } from '../render/table.ts';
import type { RestoreDocument, RestoreFilesDocument } from './documents.ts';

export function renderRestored(done: RestoreDocument): string {
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

export function renderRestoreWarnings({ lost, warnings }: RestoreDocument): string {
  return [
    ...warnings.map((text) => `warning: ${printable(text)}\n`),
    ...lost.map(
      ({ offset, length, reason }) => `lost: ${length} bytes at ${offset} are zeros: ${printable(reason)}\n`,
    ),
  ].join('');
}

export function renderRestoredFiles({ point, device, to, paths, seconds }: RestoreFilesDocument): string {
  const list = paths.map((path) => `${printable(path)}\n`).join('');
  return `${list}restored from ${printable(device)} of ${point} to ${printable(to)} in ${formatDuration(seconds * 1000)}\n`;
}
