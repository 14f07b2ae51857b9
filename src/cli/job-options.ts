/** The options of a job on the command line, and the document that the API takes. */
import { type Command, Option } from 'commander';
import { resolve } from 'node:path';
import { parseBytes } from '../base/bytes.ts';
import { parseDuration } from '../base/duration.ts';
import { AgentError } from '../base/errors.ts';
import type { JobOptionsDocument } from '../api/job-options.ts';

export interface JobOptionValues {
  maxFreeze?: number;
  rate?: number;
  impact?: 'low' | 'normal' | 'high';
  onReadError?: 'fail' | 'zero';
  connections?: number;
  reconnect?: number;
  verify?: 'none' | 'sample' | 'full';
  tracker?: 'auto' | 'ebpf' | 'blktrace' | 'none';
  snapshot?: 'auto' | 'never';
  snapshotSize?: number;
  /** Commander's name for --no-fallback: true unless the option is given. */
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
    .option('--max-freeze <time>', 'longest freeze to allow, like 500ms or 2s (5s)', (text) =>
      atLeastOne(parseDuration(text, '--max-freeze'), '--max-freeze', text),
    )
    .option('--rate <bytes>', 'bytes per second of the whole job, like 50M (no limit)', (text) =>
      atLeastOne(parseBytes(text, '--rate'), '--rate', text),
    )
    .addOption(
      new Option('--impact <level>', 'how much to slow other work on the machine (normal)').choices([
        'low',
        'normal',
        'high',
      ]),
    )
    .addOption(
      new Option('--on-read-error <what>', 'on a bad sector: fail the job, or write zeros (fail)').choices([
        'fail',
        'zero',
      ]),
    )
    .option('--connections <number>', 'connections to each target, if it allows several (2)', (text) =>
      parseCount(text, '--connections', 16),
    )
    .option('--reconnect <time>', 'how long to wait for a lost target (60s)', (text) =>
      parseDuration(text, '--reconnect'),
    )
    .addOption(
      new Option('--verify <how>', 'how much to read back and compare at the end (sample)').choices([
        'none',
        'sample',
        'full',
      ]),
    )
    .addOption(
      new Option('--tracker <which>', 'tracker of changed blocks (auto)').choices([
        'auto',
        'ebpf',
        'blktrace',
        'none',
      ]),
    )
    .addOption(
      new Option('--snapshot <when>', 'read untracked devices from a temporary LVM snapshot (auto)').choices([
        'auto',
        'never',
      ]),
    )
    .option(
      '--snapshot-size <bytes>',
      'size of the snapshot of a thick volume (a tenth of the volume, at least 1G)',
      (text) => parseBytes(text, '--snapshot-size'),
    )
    .option(
      '--no-fingerprints',
      'make a full use less processor time; the next backup to its target is then a full, too',
    )
    .option('--no-fallback', 'fail if the requested kind is not possible, instead of making another kind')
    .option('--trim', 'let the target free the space of blocks that are no longer in use')
    .option('--max-passes <number>', 'limit of copy passes before the freeze (8)', (text) =>
      parseCount(text, '--max-passes', 100),
    )
    .option(
      '--pre-freeze-hook <path>',
      'executable to run before the freeze; if it fails, the job fails',
      toPath,
    )
    .option('--post-thaw-hook <path>', 'executable to run after the thaw', toPath)
    .option('--frozen-hook <path>', 'executable to run while frozen, within --max-freeze', toPath);
}

/** The options that were given. The daemon's configuration decides the others. */
export function jobOptionsDocument(values: JobOptionValues): JobOptionsDocument {
  return {
    ...(values.maxFreeze === undefined ? {} : { max_freeze_ms: values.maxFreeze }),
    ...(values.rate === undefined ? {} : { rate: values.rate }),
    ...(values.impact === undefined ? {} : { impact: values.impact }),
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
  if (value < 1) throw new AgentError('BAD_USAGE', `${option} "${text}" must be more than 0`);
  return value;
}

function parseCount(text: string, option: string, most: number): number {
  const count = Number(text);
  if (!/^\d+$/.test(text) || count < 1 || count > most)
    throw new AgentError('BAD_USAGE', `${option} "${text}" must be a whole number from 1 to ${most}`);
  return count;
}

/** Makes a path absolute: the working directory of the daemon is a different one. */
function toPath(text: string): string {
  return resolve(text);
}
