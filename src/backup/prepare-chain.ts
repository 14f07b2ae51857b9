/** The chain of a device and its target as a job finds it, and what can be known of the target before it begins. */
import { join } from 'node:path';
import { Bitmap } from '../base/bitmap.ts';
import { makeDirectory } from '../base/files.ts';
import type { Device } from '../devices/device.ts';
import { Chain, type ChainRecord, type ChainSubject } from '../tracking/chain.ts';
import { fingerprintUnit } from '../tracking/fingerprints.ts';
import type { CopyPool } from './copy/pool.ts';
import type { Expectation } from './copy/same-image.ts';
import type { JobEnvironment } from './job.ts';
import { type TargetSpec, targetName } from './targets.ts';

/** Units of the target that the drift check reads besides the superblocks' areas and what was sent last. */
const driftSamples = 64;

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
  /** The chain that the job goes on with: the one that was found, or a new one that does not replace it yet. */
  readonly chain: Chain;
  /** Of the chain that was found; undefined where there is none that can be used. */
  readonly record: ChainRecord | undefined;
  /** Why there is no record. */
  readonly unknown: string;
  /** Chains of other devices or filesystems that say of the same target what it holds. */
  readonly rivals: readonly Chain[];
}

/** The chain of this device and target, or a new one, which goes again where the job does not begin. */
export async function openChain(
  chains: string,
  subject: ChainSubject,
  unit: number,
  undo: (() => Promise<void>)[],
  /** The target keeps many devices side by side: no chain is another's rival. */
  shared = false,
): Promise<FoundChain> {
  const rivals: Chain[] = [];
  const all = Chain.all(chains, fingerprintUnit, ({ target }) => target === subject.target);
  // One that cannot be read may be a rival, so its error is not passed over.
  for await (const chain of shared ? [] : all)
    if (chain.record.uuid !== subject.uuid || (subject.uuid === '' && chain.record.path !== subject.path))
      rivals.push(chain);
  const found = await Chain.open(chains, subject, unit);
  const unknown = await whyUnknown(chains, subject, rivals);
  // The files of a chain are as long as its device: another size needs new ones.
  if (found?.record.size === subject.size) return { chain: found, record: found.record, unknown, rivals };
  const chain = await Chain.create(chains, subject, { targetSize: 0, unit });
  undo.push(() => chain.remove());
  return { chain, record: found?.record, unknown, rivals };
}

async function whyUnknown(chains: string, subject: ChainSubject, rivals: readonly Chain[]): Promise<string> {
  if (await Chain.exists(chains, subject))
    return 'what is recorded of the last backup to this target is damaged';
  const before = rivals.find(({ record }) => record.path === subject.path);
  if (before !== undefined)
    return `the filesystem has the UUID "${subject.uuid}" now and had "${before.record.uuid}"`;
  return 'no backup of this device to this target has been completed yet';
}

/**
 * Reads some of what the target is known to hold, and compares it with the fingerprints. The reason where it differs.
 * A server that was lost meanwhile may have come back with another image, so the check begins again then.
 * `wholly`: the job compares all of it (plan.ts, `readTarget`), so nothing has to be read here.
 */
export async function drift(
  pool: CopyPool,
  chain: Chain,
  { wholly }: { readonly wholly: boolean },
): Promise<string | undefined> {
  if (!pool.facts.abilities.read) return 'the target cannot be read, so its content is not known';
  if (wholly) return undefined;
  if (pool.facts.size < chain.pending.size) return undefined;
  for (;;) {
    const { reconnects } = pool;
    const { mismatches, firstMismatch } = await pool.verify(driftSample(chain));
    if (mismatches > 0)
      return `the target does not hold what the last backup left there (${mismatches} of the places looked at differ, the first at ${firstMismatch})`;
    if (pool.reconnects === reconnects) return undefined;
  }
}

/** What a reconnect has to find again at the target, besides what the job itself has sent (copy/same-image.ts). */
export function expectation(chain: Chain): Expectation {
  return {
    known: () => driftSample(chain),
    distrust: () => chain.save({ state: 'incomplete', torn: true }),
  };
}

/**
 * Some of what the target is known to hold: always the areas of the superblocks and what the last job sent, and others
 * by chance.
 */
function driftSample(chain: Chain): Bitmap {
  const { size, unit } = chain.pending;
  const set = new Bitmap(size, unit);
  const units = Math.ceil(size / fingerprintUnit);
  const step = Math.max(1, Math.floor(units / driftSamples));
  const places = [0, 1, units - 1, ...(chain.record.recent ?? [])];
  for (let place = Math.floor(Math.random() * step); place < units; place += step) places.push(place);
  for (const place of places) if (place < units) set.mark(place * fingerprintUnit, fingerprintUnit);
  return knownUnits(chain, set);
}

/**
 * The set without the fingerprint units of which the target lacks a part, or may lack one: their fingerprints do not
 * count.
 */
export function knownUnits(chain: Chain, set: Bitmap): Bitmap {
  const known = set.clone();
  for (const lacking of [chain.pending, chain.besides])
    for (const { offset, length } of lacking?.extents() ?? []) {
      const first = Math.floor(offset / fingerprintUnit) * fingerprintUnit;
      const end = Math.ceil((offset + length) / fingerprintUnit) * fingerprintUnit;
      known.clear(first, end - first);
    }
  return known;
}
