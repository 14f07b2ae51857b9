/** Medians, spreads and ratios as a table in Markdown. */
import type { Measurement } from './tools.ts';

/** Returns the table. A ratio is a tool's time divided by ours, run by run: above 1 we are faster. */
export function table(results: ReadonlyMap<string, readonly Measurement[]>, sizeGiB: number): string {
  const ours = results.values().next().value ?? [];
  const rows = [...results].map(([name, runs]) => {
    const seconds = runs.map((run) => run.seconds);
    const ratios = runs.map((run, i) => run.seconds / (ours[i]?.seconds ?? Number.NaN));
    const cpu = runs.map((run) => run.cpuSeconds / sizeGiB);
    const peak = Math.max(...runs.map((run) => run.peakMiB));
    return [
      name,
      spread(seconds, 2),
      runs === ours ? '1' : spread(ratios, 2),
      spread(cpu, 2),
      `${Math.round(peak)} MiB`,
    ];
  });
  const head = ['tool', 'seconds', 'times our time', 'processor s per GiB of device', 'peak memory'];
  return [head, head.map(() => '---'), ...rows]
    .map((cells) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`)
    .join('\n');
}

/** Returns `median (lowest to highest)`. */
export function spread(values: readonly number[], digits: number): string {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const median =
    sorted.length % 2 === 1 ? (sorted[middle] ?? 0) : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2;
  const format = (value: number): string => value.toFixed(digits);
  return `${format(median)} (${format(sorted[0] ?? 0)} to ${format(sorted.at(-1) ?? 0)})`;
}
