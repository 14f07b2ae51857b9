/** The configuration file of dattod (docs/dattod.md): JSON with defaults for job options, vaults and the daemon. */
import { join } from 'node:path';
import { AgentError, errnoCode } from '../base/errors.ts';
import { readTrusted } from '../base/trusted-file.ts';
import type { JobOptionsDocument } from './documents.ts';
import { type NamedVaults, checkVaults } from '../vault/settings.ts';
import { checkJobOptions } from './job-options.ts';

export interface DaemonConfig {
  /** Options that a job gets if its request does not give them. */
  readonly job_options: JobOptionsDocument;
  /** Vaults by name. */
  readonly vaults: NamedVaults;
  /** How many ended jobs the history keeps. */
  readonly history_limit: number;
  /** Whether tracking continues over clean reboots, if that is safe (docs/tracking.md). */
  readonly reboot_continuity: boolean;
  /** Path of the record of a shutdown: a file or a prepared block device. Null: a file in the state directory. */
  readonly reboot_record: string | null;
}

export const defaultConfig: DaemonConfig = {
  job_options: {},
  vaults: {},
  history_limit: 1000,
  reboot_continuity: true,
  reboot_record: null,
};

/** Returns the path of the record of a shutdown. */
export function recordPlace(config: DaemonConfig, stateDirectory: string): string {
  return config.reboot_record ?? join(stateDirectory, 'reboot-record');
}

/**
 * Reads and checks the file. Returns the defaults if the file is missing and not `required`. Throws BAD_USAGE,
 * FILE_ERROR or UNSAFE_FILE.
 */
export async function readConfig(path: string, required: boolean): Promise<DaemonConfig> {
  let text: string;
  try {
    text = (await readTrusted(path, 'configuration')).toString('utf8');
  } catch (error) {
    if (error instanceof AgentError) throw error;
    if (!required && errnoCode(error) === 'ENOENT') return defaultConfig;
    throw new AgentError(
      'FILE_ERROR',
      `The configuration ${path} cannot be read: ${errnoCode(error) ?? '?'}`,
      {
        cause: error,
      },
    );
  }
  return parseConfig(text, path);
}

/** Checks the text of a configuration. `path` is only used in messages. Throws BAD_USAGE. */
export function parseConfig(text: string, path: string): DaemonConfig {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new AgentError('BAD_USAGE', `${path} is not JSON: ${(error as Error).message}`, { cause: error });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new AgentError('BAD_USAGE', `${path} is not a JSON object`);
  const known = Object.keys(defaultConfig);
  for (const key of Object.keys(value))
    if (!known.includes(key))
      throw new AgentError('BAD_USAGE', `${path}: unknown key "${key}"`, {
        hint: `known are ${known.join(', ')}`,
      });
  const given = value as Partial<Record<keyof DaemonConfig, unknown>>;
  const limit = given.history_limit ?? defaultConfig.history_limit;
  if (typeof limit !== 'number' || !Number.isInteger(limit) || limit < 1 || limit > 100_000)
    throw new AgentError(
      'BAD_USAGE',
      `${path}: "history_limit" is ${JSON.stringify(limit)}, not a whole number from 1 to 100000`,
    );
  const continuity = given.reboot_continuity ?? defaultConfig.reboot_continuity;
  if (typeof continuity !== 'boolean')
    throw new AgentError(
      'BAD_USAGE',
      `${path}: "reboot_continuity" is ${JSON.stringify(continuity)}, not true or false`,
    );
  const record = given.reboot_record ?? null;
  if (record !== null && (typeof record !== 'string' || !record.startsWith('/')))
    throw new AgentError(
      'BAD_USAGE',
      `${path}: "reboot_record" is ${JSON.stringify(record)}, not an absolute path`,
    );
  return {
    job_options: checkJobOptions(given.job_options ?? {}, `${path}: job_options`),
    vaults: checkVaults(given.vaults ?? {}, `${path}: vaults`),
    history_limit: limit,
    reboot_continuity: continuity,
    reboot_record: record,
  };
}
