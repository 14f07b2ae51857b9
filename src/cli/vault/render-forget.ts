/** Renders the result of `forget` for people. */
import { localTime } from '../render/job.ts';
import { printable, renderTable } from '../render/table.ts';
import { digitsNeeded } from './render-points.ts';
import type { ForgetDocument } from './documents.ts';

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
