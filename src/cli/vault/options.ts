/** The options that every vault command has: the vault, its key, and the places on this machine. */
import { type Command, Option } from 'commander';
import { resolve } from 'node:path';
import { AgentError } from '../../base/errors.ts';

export interface VaultValues {
  readonly vault?: string;
  readonly keyFile?: string;
  readonly passphraseFile?: string;
  readonly passphrase?: true;
  readonly recoveryCode?: true;
  readonly recoveryCodeFile?: string;
  readonly config: string;
  readonly stateDir: string;
}

export const defaultVault = 'vault:default';

/** The same places as the daemon's (docs/dattod.md). */
const defaults = { config: '/etc/dattod/config.json', stateDir: '/var/lib/dattod', runDir: '/run/dattod' };

export function addVaultOption(command: Command): Command {
  return command.option('--vault <location>', `vault:NAME, vault:/path or vault+s3://… (${defaultVault})`);
}

function addKeyOptions(command: Command): Command {
  return command
    .option('--key-file <path>', 'open the vault with this key file', toPath)
    .option('--passphrase-file <path>', 'open it with the passphrase in this file', toPath)
    .option('--passphrase', 'ask for the passphrase')
    .option('--recovery-code-file <path>', 'open it with the recovery code in this file', toPath)
    .option('--recovery-code', 'ask for the recovery code');
}

export function addPlaceOptions(command: Command): Command {
  return command
    .addOption(placeOption('--config <path>', 'configuration with named vaults', defaults.config))
    .addOption(
      placeOption(
        '--state-dir <path>',
        'directory of the default vault, keys and indexes',
        defaults.stateDir,
      ),
    );
}

export function addVaultOptions(command: Command): Command {
  return addPlaceOptions(addKeyOptions(addVaultOption(command)));
}

export function addRunDirectory(command: Command): Command {
  return command.addOption(
    placeOption('--run-dir <path>', 'directory of mount records and sockets', defaults.runDir),
  );
}

export function addDeviceOption(command: Command): Command {
  return command.option('--device <name>', 'device of the point, if it has several: path, UUID or label');
}

export const pointArgument = ['<point>', 'point ID or its beginning, latest, or latest:DEVICE'] as const;

function placeOption(flags: string, about: string, value: string): Option {
  return new Option(flags, about).argParser(toPath).default(value, value);
}

export function toPath(text: string): string {
  if (text === '') throw new AgentError('BAD_USAGE', 'A path on the command line is empty');
  return resolve(text);
}

/** Returns a parser for an option that takes a positive integer. */
export function toCount(option: string): (text: string) => number {
  return (text) => {
    if (!/^[1-9]\d{0,8}$/.test(text))
      throw new AgentError('BAD_USAGE', `${option} "${text}" must be a positive integer`, {
        hint: 'give a number, or leave the option out',
      });
    return Number(text);
  };
}

/** Returns a parser for a share like `5%` or `0.05`, above 0 and at most 1. */
export function toShare(option: string): (text: string) => number {
  return (text) => {
    const match = /^(\d+(?:\.\d+)?)(%?)$/.exec(text);
    const share = match === null ? Number.NaN : Number(match[1]) / (match[2] === '%' ? 100 : 1);
    if (!(share > 0 && share <= 1))
      throw new AgentError('BAD_USAGE', `${option} "${text}" must be above 0% and at most 100%`);
    return share;
  };
}
