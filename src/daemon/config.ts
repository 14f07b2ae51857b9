/** The configuration file of dattod (docs/dattod.md): JSON with defaults for job options, vaults and the daemon. */
import { join } from 'node:path';
import { problemOf } from '../api/check.ts';
import { type Configuration, configuration } from '../api/configuration.ts';
import { problemHint, problemText } from '../api/problem.ts';
import { AgentError, errnoCode } from '../base/errors.ts';
import { readTrusted } from '../base/trusted-file.ts';
import { checkLocations } from '../vault/settings.ts';

/** The configuration with the defaults filled in. `reboot_record` is null for a file in the state directory. */
export type DaemonConfig = Readonly<
  Required<Omit<Configuration, 'reboot_record'>> & { reboot_record: string | null }
>;

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
  const problem = problemOf(configuration, withoutNulls(value));
  if (problem?.name === '') throw new AgentError('BAD_USAGE', `${path} is not a JSON object`);
  if (problem !== undefined) {
    const hint = problemHint(problem);
    const message = `${path}: ${problemText(problem)}`;
    throw new AgentError('BAD_USAGE', message, hint === undefined ? {} : { hint });
  }
  const given = withoutNulls(value) as Configuration;
  const config = { ...defaultConfig, ...given };
  checkLocations(config.vaults, `${path}: vaults`);
  return config;
}

/** A null stands for the default. */
function withoutNulls(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  const entries = Object.entries(value);
  return Object.fromEntries(
    entries.filter(([key, each]) => each !== null || !Object.hasOwn(defaultConfig, key)),
  );
}
