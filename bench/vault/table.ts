/** Medians, spreads and ratios as a table in Markdown. */
import { MiB } from '../../src/base/bytes.ts';
import { spread } from '../full-backup/report.ts';
import type { Measured } from './contenders.ts';

/** Returns the table. A ratio is a peer's time divided by ours, run by run: above 1 we are faster. */
export function table(results: ReadonlyMap<string, readonly Measured[]>): string {
  const ours = results.values().next().value ?? [];
  const rows = [...results].map(([name, runs]) => {
    const cells = (['first', 'second', 'third', 'restore'] as const).flatMap((step) => {
      const seconds = runs.map((run) => run[step]?.seconds ?? Number.NaN);
      const ratios = seconds.map((value, i) => value / (ours[i]?.[step]?.seconds ?? Number.NaN));
      return [spread(seconds, 2), runs === ours ? '1' : spread(ratios, 2)];
    });
    const stored = runs.map((run) => (run.stored ?? Number.NaN) / MiB);
    const peak = Math.max(
      ...runs.flatMap((run) =>
        [run.first, run.second, run.third, run.restore].map((each) => each?.peak ?? 0),
      ),
    );
    return [name, ...cells, spread(stored, 0), `${Math.round(peak)} MiB`];
  });
  const times = (step: string): string[] => [`${step}, seconds`, 'times ours'];
  const head = [
    'tool',
    ...times('first'),
    ...times('second'),
    ...times('third'),
    ...times('restore'),
    'store, MiB',
    'peak memory',
  ];
  return [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}
