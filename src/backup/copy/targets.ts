/** Targets in three forms: the text that a user writes, the specification that a thread gets, and the opened target. */
import type { Stats } from 'node:fs';
import { rm, truncate } from 'node:fs/promises';
import { AgentError } from '../../base/errors.ts';
import { openFileTarget } from '../../block/file-target.ts';
import type { Target } from '../../block/target.ts';
import { statIfExisting } from '../../block/write-errors.ts';
import { type NbdAddress, formatNbdUri, parseNbdUri } from '../../nbd/client/uri.ts';
import { connectWithBackoff } from '../../nbd/client/backoff.ts';
import { connectNbd } from '../../nbd/client/connect.ts';
import {
  type VaultLocation,
  formatVaultLocation,
  isVaultLocation,
  parseVaultLocation,
} from '../../vault/store/location.ts';
import { type ImageInTheMaking, VaultTarget } from '../../vault/writing/vault-target.ts';

/** A target's address, in a form that can be sent to a thread. */
export type TargetSpec =
  | { readonly kind: 'nbd'; readonly address: NbdAddress }
  | { readonly kind: 'file'; readonly path: string }
  /** `making`: given when the job has begun to write there. */
  | { readonly kind: 'vault'; readonly location: VaultLocation; readonly making?: ImageInTheMaking };

/** Parses `nbd://…` and similar URIs, a vault, or an absolute path. Throws BAD_TARGET. */
export function parseTarget(text: string): TargetSpec {
  if (/^nbds?(\+unix)?:/.test(text)) return { kind: 'nbd', address: parseNbdUri(text) };
  if (isVaultLocation(text)) return { kind: 'vault', location: parseVaultLocation(text) };
  if (text.startsWith('/')) return { kind: 'file', path: text };
  throw new AgentError('BAD_TARGET', `"${text}" is neither an NBD URI nor a vault nor an absolute path`, {
    hint: 'write nbd://HOST:PORT/EXPORT, nbds://…, nbd+unix:///EXPORT?socket=PATH, vault:/path, vault:NAME, or /path/of/an/image',
  });
}

/** Returns the target's name for messages and documents. It contains no secrets. */
export function targetName(spec: TargetSpec): string {
  switch (spec.kind) {
    case 'nbd':
      return formatNbdUri(spec.address);
    case 'vault':
      return formatVaultLocation(spec.location);
    case 'file':
      return spec.path;
  }
}

/**
 * Returns a function that undoes the opening of a target: it removes a new file, and empties one that was empty before.
 * To be called only if nothing was written.
 */
export async function undoMaking(spec: TargetSpec): Promise<() => Promise<void>> {
  if (spec.kind !== 'file') return () => Promise.resolve();
  const { path } = spec;
  let before: Stats | undefined;
  try {
    before = await statIfExisting(path);
  } catch {
    // There may be an image. Opening it reports the error.
    return () => Promise.resolve();
  }
  // The file may not exist. The error that the caller gets already reports why.
  if (before === undefined) return () => rm(path).catch(() => undefined);
  return async () => {
    if (before.isFile() && before.size === 0) await truncate(path);
  };
}

export interface OpenTargetOptions {
  /** Milliseconds to wait for a target that does not answer. 0: one try. */
  readonly waitMs: number;
  readonly signal: AbortSignal;
  /** True for the first of several opens of the same target. It locks out other programs. */
  readonly first: boolean;
  /** Size in bytes that a new image file gets. */
  readonly deviceSize: number;
  readonly access: 'read' | 'write';
}

/** Opens the target. Throws TARGET_UNREACHABLE, NBD_…, TARGET_…, FILE_ERROR. */
export async function openTarget(spec: TargetSpec, options: OpenTargetOptions): Promise<Target> {
  if (spec.kind === 'file')
    return openFileTarget(spec.path, {
      ...(options.access === 'read' ? { readOnly: true } : { create: { size: options.deviceSize } }),
      exclusive: options.first,
    });
  if (spec.kind === 'vault') {
    if (spec.making === undefined) throw new Error('a vault is written to within a writer session');
    return VaultTarget.open(spec.making, options.deviceSize);
  }
  if (options.waitMs === 0) return connectNbd(spec.address, { signal: options.signal });
  return connectWithBackoff(spec.address, { deadlineMs: options.waitMs, signal: options.signal });
}
