/** The options of a job on the command line, and the document that the API takes. */
import { type Command, Option } from 'commander';
import { resolve } from 'node:path';
import { parseBytes } from '../base/bytes.ts';
import { parseDuration } from '../base/duration.ts';
import { AgentError } from '../base/errors.ts';
import type { JobOptionsDocument } from '../daemon/documents.ts';

export interface JobOptionValues {
  maxFreeze?: number;
  rate?: number;
  onReadError?: 'fail' | 'zero';
  connections?: number;
  reconnect?: number;
  verify?: 'none' | 'sample' | 'full';
  tracker?: 'auto' | 'ebpf' | 'blktrace' | 'none';
  snapshot?: 'auto' | 'never';
  snapshotSize?: number;
  /** Commander's name for --no-fallback: true unless it is given. */
  fallback?: boolean;
  /** True unless --no-fingerprints is given. */
  fingerprints?: boolean;
  trim?: boolean;
  maxPasses?: number;
  preFreezeHook?: string;
  postThawHook?: string;
  frozenHook?: string;
}

export function addJobOptions(command: Command): Command {
  return command
    .option('--max-freeze <time>', 'longest allowed freeze, like 500ms or 2s (5s)', (text) =>
      atLeastOne(parseDuration(text, '--max-freeze'), '--max-freeze', text),
    )
    .option('--rate <bytes>', 'limit per second over the whole job, like 50M (none)', (text) =>
      atLeastOne(parseBytes(text, '--rate'), '--rate', text),
    )
    .addOption(
      new Option('--on-read-error <what>', 'a bad sector fails the job, or becomes zeros (fail)').choices([
        'fail',
        'zero',
      ]),
    )
    .option('--connections <number>', 'connections to each target that allows several (2)', (text) =>
      parseCount(text, '--connections', 16),
    )
    .option('--reconnect <time>', 'how long a lost target is waited for (60s)', (text) =>
      parseDuration(text, '--reconnect'),
    )
    .addOption(
      new Option('--verify <how>', 'how much is read back and compared at the end (sample)').choices([
        'none',
        'sample',
        'full',
      ]),
    )
    .addOption(
      new Option('--tracker <which>', 'what tracks changed blocks (auto)').choices([
        'auto',
        'ebpf',
        'blktrace',
        'none',
      ]),
    )
    .addOption(
      new Option(
        '--snapshot <when>',
        'read what nothing tracks from a temporary LVM snapshot (auto)',
      ).choices(['auto', 'never']),
    )
    .option(
      '--snapshot-size <bytes>',
      'for a snapshot of a thick volume (a tenth of it, at least 1G)',
      (text) => parseBytes(text, '--snapshot-size'),
    )
    .option(
      '--no-fingerprints',
      'a full takes less processor time; the next backup to its target is a full again',
    )
    .option('--no-fallback', 'fail instead of making a differential of an incremental in doubt')
    .option('--trim', 'let the target free the space of what is no longer in use')
    .option('--max-passes <number>', 'copying passes before the freeze, at most (8)', (text) =>
      parseCount(text, '--max-passes', 100),
    )
    .option(
      '--pre-freeze-hook <path>',
      'executable to run before the freeze; its failure ends the job',
      toPath,
    )
    .option('--post-thaw-hook <path>', 'executable to run after the thaw', toPath)
    .option('--frozen-hook <path>', 'executable to run while frozen, within --max-freeze', toPath);
}

/** What was given; what was not is left to the daemon's configuration. */
export function jobOptionsDocument(values: JobOptionValues): JobOptionsDocument {
  return {
    ...(values.maxFreeze === undefined ? {} : { max_freeze_ms: values.maxFreeze }),
    ...(values.rate === undefined ? {} : { rate: values.rate }),
    ...(values.onReadError === undefined ? {} : { on_read_error: values.onReadError }),
    ...(values.connections === undefined ? {} : { connections: values.connections }),
    ...(values.reconnect === undefined ? {} : { reconnect_ms: values.reconnect }),
    ...(values.verify === undefined ? {} : { verify: values.verify }),
    ...(values.tracker === undefined ? {} : { tracker: values.tracker }),
    ...(values.snapshot === undefined ? {} : { snapshot: values.snapshot }),
    ...(values.snapshotSize === undefined ? {} : { snapshot_size: values.snapshotSize }),
    ...(values.fingerprints === false ? { fingerprints: false } : {}),
    ...(values.fallback === false ? { fallback: false } : {}),
    ...(values.trim === true ? { trim: true } : {}),
    ...(values.maxPasses === undefined ? {} : { max_passes: values.maxPasses }),
    ...(values.preFreezeHook === undefined ? {} : { pre_freeze_hook: values.preFreezeHook }),
    ...(values.postThawHook === undefined ? {} : { post_thaw_hook: values.postThawHook }),
    ...(values.frozenHook === undefined ? {} : { frozen_hook: values.frozenHook }),
  };
}

function atLeastOne(value: number, option: string, text: string): number {
  if (value < 1)
    throw new AgentError('BAD_USAGE', `${option} "${text}" is too small`, { hint: 'it must be above 0' });
  return value;
}

function parseCount(text: string, option: string, most: number): number {
  const count = Number(text);
  if (!/^\d+$/.test(text) || count < 1 || count > most)
    throw new AgentError('BAD_USAGE', `${option} "${text}" is no number from 1 to ${most}`);
  return count;
}

/** The daemon's directory is another, so paths are made absolute here. */
function toPath(text: string): string {
  return resolve(text);
}
