/**
 * Which vault this machine has seen at which place: one small file for each place in the state directory. A store that
 * answers with another vault (an exchanged disk or bucket, or one whose owner wants to be given the data) is refused before
 * anything is written to it. Of a vault of the same id and key, an older state is not noticed by this.
 */
import { createHash } from 'node:crypto';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { replaceFile } from '../base/durable.ts';
import { AgentError, errnoCode } from '../base/errors.ts';
import { isId } from './ids.ts';

interface Pin {
  readonly format: 1;
  /** As a person writes it. */
  readonly location: string;
  readonly id: string;
  /** ISO 8601. */
  readonly seen: string;
}

/** Throws VAULT_EXCHANGED where another vault was seen there, FILE_ERROR where that cannot be read. */
export async function expectSameVault(stateDirectory: string, location: string, id: string): Promise<void> {
  const path = pinPath(stateDirectory, location);
  const pin = await readPin(path);
  if (pin === undefined || pin.id === id) return;
  throw new AgentError(
    'VAULT_EXCHANGED',
    `${location} holds the vault ${id}, where this machine has seen the vault ${pin.id} since ${pin.seen}`,
    {
      hint: `is it the right disk or bucket? If another vault is meant to be there now, remove ${path}`,
    },
  );
}

/** To be called when a key has proven which vault it is. Throws FILE_ERROR. */
export async function rememberVault(stateDirectory: string, location: string, id: string): Promise<void> {
  const path = pinPath(stateDirectory, location);
  if ((await readPin(path))?.id === id) return;
  const pin: Pin = { format: 1, location, id, seen: new Date().toISOString() };
  try {
    await mkdir(join(stateDirectory, 'vault-places'), { recursive: true, mode: 0o700 });
    await replaceFile(path, `${JSON.stringify(pin)}\n`);
  } catch (error) {
    throw fileError(path, 'written', error);
  }
}

function pinPath(stateDirectory: string, location: string): string {
  const name = createHash('sha256').update(location).digest('hex').slice(0, 16);
  return join(stateDirectory, 'vault-places', `${name}.json`);
}

/** Undefined where there is none, or none that can be made sense of. */
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
    return typeof pin?.id === 'string' && isId(pin.id) && typeof pin.seen === 'string'
      ? (pin as Pin)
      : undefined;
  } catch {
    return undefined;
  }
}

function fileError(path: string, what: string, error: unknown): AgentError {
  return new AgentError('FILE_ERROR', `${path} cannot be ${what}: ${errnoCode(error) ?? String(error)}`, {
    hint: 'the state directory keeps which vault was seen at which place: run as root, or give one with --state-dir',
    cause: error,
  });
}
