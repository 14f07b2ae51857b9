/**
 * Pins: the vaults that this machine has seen at each location, in one small file per location in the state
 * directory. A location has several vaults if disks take turns at a mount point. A vault that was not seen there (an
 * exchanged disk or bucket, or a store that tries to collect data) is refused before anything is written to it. An
 * older state of the same vault is not detected.
 */
import { createHash } from 'node:crypto';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { replaceFile } from '../base/durable.ts';
import { AgentError, errnoCode, systemHints } from '../base/errors.ts';
import { isId } from './ids.ts';

interface Pin {
  readonly format: 1;
  /** As the user writes it. */
  readonly location: string;
  readonly id: string;
  /** ISO 8601. */
  readonly seen: string;
  /** Vaults that were created or accepted there later. Files of earlier versions lack this field. */
  readonly others?: readonly SeenVault[];
}

interface SeenVault {
  readonly id: string;
  /** ISO 8601. */
  readonly seen: string;
}

/** Throws VAULT_EXCHANGED if only other vaults were seen there, FILE_ERROR if the file cannot be read. */
export async function expectSameVault(stateDirectory: string, location: string, id: string): Promise<void> {
  const pin = await readPin(pinPath(stateDirectory, location));
  if (pin === undefined) return;
  const known = seenVaults(pin);
  if (known.some((each) => each.id === id)) return;
  const seen = known.map((each) => `${each.id} since ${each.seen}`).join(' and ');
  throw new AgentError(
    'VAULT_EXCHANGED',
    `${location} holds the vault ${id}, but this machine has seen the vault ${seen} there`,
    {
      hint:
        `check that it is the right disk or bucket; if this vault belongs there too, run ` +
        `dattocli vault info --vault ${location} --accept-vault ${id}`,
    },
  );
}

/**
 * Adds the vault to the vaults of this location. Call it only after a key has proven the vault's ID. Throws
 * FILE_ERROR.
 */
export async function rememberVault(stateDirectory: string, location: string, id: string): Promise<void> {
  const path = pinPath(stateDirectory, location);
  const before = await readPin(path);
  const now = { id, seen: new Date().toISOString() };
  if (before !== undefined && seenVaults(before).some((each) => each.id === id)) return;
  const pin: Pin =
    before === undefined
      ? { format: 1, location, ...now }
      : { ...before, others: [...seenVaults(before).slice(1), now] };
  try {
    await mkdir(join(stateDirectory, 'vault-places'), { recursive: true, mode: 0o700 });
    await replaceFile(path, `${JSON.stringify(pin)}\n`);
  } catch (error) {
    throw fileError(path, 'written', error);
  }
}

function seenVaults({ id, seen, others }: Pin): readonly SeenVault[] {
  return [{ id, seen }, ...(Array.isArray(others) ? (others as SeenVault[]) : []).filter(isSeenVault)];
}

function isSeenVault(value: unknown): value is SeenVault {
  const { id, seen } = (value ?? {}) as Partial<SeenVault>;
  return typeof id === 'string' && isId(id) && typeof seen === 'string';
}

function pinPath(stateDirectory: string, location: string): string {
  const name = createHash('sha256').update(location).digest('hex').slice(0, 16);
  return join(stateDirectory, 'vault-places', `${name}.json`);
}

/** Returns undefined if the file is missing or invalid. */
async function readPin(path: string): Promise<Pin | undefined> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if (errnoCode(error) === 'ENOENT') return undefined;
    throw fileError(path, 'read', error);
  }
  try {
    const pin = JSON.parse(text) as Partial<Pin> | null;
    return isSeenVault(pin) ? (pin as Pin) : undefined;
  } catch {
    return undefined;
  }
}

function fileError(path: string, what: string, error: unknown): AgentError {
  if (error instanceof AgentError) return error;
  const code = errnoCode(error) ?? String(error);
  return new AgentError('FILE_ERROR', `${path} cannot be ${what}: ${code}`, {
    hint:
      systemHints[code] ??
      'the state directory records the vaults of each location; run as root, or choose another one ' +
        'with --state-dir',
    cause: error,
  });
}
