/** The chain of a device and its target, as a job finds it. */
import { join } from 'node:path';
import { makeDirectory } from '../../base/files.ts';
import type { Device } from '../../devices/device.ts';
import { Chain, type ChainRecord, type ChainSubject } from '../../tracking/chain.ts';
import { fingerprintUnit } from '../../tracking/fingerprints.ts';
import { type TargetSpec, targetName } from '../copy/targets.ts';
import type { JobEnvironment } from '../job.ts';

export async function chainsDirectory(environment: Pick<JobEnvironment, 'stateDirectory'>): Promise<string> {
  const directory = join(environment.stateDirectory, 'chains');
  await makeDirectory(directory);
  return directory;
}

/** `hasClone`: another device has the same filesystem UUID (clones.ts). */
export function chainSubject(device: Device, target: TargetSpec, hasClone = false): ChainSubject {
  return {
    uuid: device.filesystem?.uuid ?? '',
    path: device.path,
    size: device.size,
    partitionStart: device.partition?.start ?? 0,
    target: targetName(target),
    ...(hasClone && target.kind === 'vault' ? { cloned: true } : {}),
  };
}

export interface FoundChain {
  /** The chain that the job uses: the one that was found, or a new one that does not replace it yet. */
  readonly chain: Chain;
  /** The record of the chain that was found. Undefined if no usable one was found. */
  readonly record: ChainRecord | undefined;
  /** The reason why there is no record. */
  readonly unknown: string;
  /** Chains of other devices or filesystems that record the content of the same target. */
  readonly rivals: readonly Chain[];
}

/** Opens the chain of this device and target, or creates one. A new chain is removed if the job does not start. */
export async function openChain(
  chains: string,
  subject: ChainSubject,
  options: {
    /** Bytes per bit of its maps. */
    readonly unit: number;
    /** The target keeps many devices side by side, so no chain is a rival of another. */
    readonly isShared: boolean;
    readonly undo: AsyncDisposableStack;
  },
): Promise<FoundChain> {
  const { unit, isShared, undo } = options;
  const rivals: Chain[] = [];
  const all = Chain.all(chains, fingerprintUnit, ({ target }) => target === subject.target);
  // A chain that cannot be read may be a rival, so its error is not ignored.
  for await (const chain of isShared ? [] : all)
    if (chain.record.uuid !== subject.uuid || (subject.uuid === '' && chain.record.path !== subject.path))
      rivals.push(chain);
  const found = await Chain.open(chains, subject, unit);
  const unknown = await whyUnknown(chains, subject, rivals);
  // The files of a chain are as long as its device, so another size needs new ones.
  if (found?.record.size === subject.size) return { chain: found, record: found.record, unknown, rivals };
  const chain = await Chain.create(chains, subject, { targetSize: 0, unit });
  undo.defer(() => chain.remove());
  return { chain, record: found?.record, unknown, rivals };
}

async function whyUnknown(chains: string, subject: ChainSubject, rivals: readonly Chain[]): Promise<string> {
  if (await Chain.exists(chains, subject)) return 'the record of the last backup to this target is damaged';
  const before = rivals.find(({ record }) => record.path === subject.path);
  if (before !== undefined)
    return `the filesystem has the UUID "${subject.uuid}" now and had "${before.record.uuid}"`;
  return 'no backup of this device to this target has been completed yet';
}
