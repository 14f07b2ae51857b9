/** Reads and formats lengths of time for people. In the code they are always milliseconds. */
import { AgentError } from './errors.ts';

const units: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, min: 60_000, h: 3_600_000 };

/**
 * Reads `500ms`, `2s`, `1.5s`, `10m`, `1h`; a bare number is seconds. Returns whole milliseconds. Throws
 * BAD_USAGE for anything else; the message names `what`.
 */
export function parseDuration(text: string, what = 'duration'): number {
  const match = /^(\d+(?:\.\d+)?)\s*(ms|s|m|min|h)?$/i.exec(text.trim());
  const ms = match
    ? Math.round(Number(match[1]) * (units[(match[2] ?? 's').toLowerCase()] ?? NaN))
    : Number.NaN;
  if (!Number.isSafeInteger(ms))
    throw new AgentError('BAD_USAGE', `${what} "${text}" is not a length of time`, {
      hint: 'write it like 500ms, 2s or 10m',
    });
  return ms;
}

/** Formats a length of time: `850 ms`, `2.4 s`, `3:07`, `1:02:45`. */
export function formatDuration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 59_950) return `${(ms / 1000).toFixed(1)} s`;
  const total = Math.round(ms / 1000);
  const pad = (value: number) => String(value).padStart(2, '0');
  const minutes = Math.floor(total / 60);
  if (minutes < 60) return `${minutes}:${pad(total % 60)}`;
  return `${Math.floor(minutes / 60)}:${pad(minutes % 60)}:${pad(total % 60)}`;
}
