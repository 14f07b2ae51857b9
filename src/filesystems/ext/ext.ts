/**
 * ext2, ext3 and ext4: probe and used map. The format, and when everything counts as used: docs/formats/ext.md.
 *
 * The superblock and all descriptors are checked before the map is returned. With an earlier map, only descriptors
 * written since are checked. The bitmaps are checked while the map is walked (groups.ts).
 */
import type { ReadAt } from '../../block/source.ts';
import {
  type FilesystemIdentity,
  type UsedMap,
  type UsedMapOptions,
  type UsedMapReader,
  everythingUsed,
} from '../used-map.ts';
import { backupProblem } from './backup-superblock.ts';
import { ExtGroups, type ExtReading, unreadable } from './groups.ts';
import { KeptGroups } from './kept.ts';
import { surveyDescriptors } from './metadata.ts';
import {
  type ExtSuperblock,
  parseSuperblock,
  superblockLength,
  superblockOffset,
  superblockProblem,
} from './superblock.ts';

/** Returns the identity; undefined if this is not ext or, as with blkid, if the checksum of the superblock is wrong. */
export async function probeExt(readAt: ReadAt, deviceSize: number): Promise<FilesystemIdentity | undefined> {
  const sb = await readSuperblock(readAt, deviceSize);
  return sb?.storedChecksum === sb?.computedChecksum ? sb && identityOn(sb, deviceSize) : undefined;
}

/** Returns the type if the magic number of ext is there, whether the rest is valid or not. */
export async function readExtType(readAt: ReadAt, deviceSize: number): Promise<string | undefined> {
  return (await readSuperblock(readAt, deviceSize))?.identity.type;
}

function identityOn({ identity }: ExtSuperblock, deviceSize: number): FilesystemIdentity {
  return { ...identity, size: Math.min(identity.size ?? 0, deviceSize) };
}

async function readSuperblock(readAt: ReadAt, deviceSize: number): Promise<ExtSuperblock | undefined> {
  if (deviceSize < superblockOffset + superblockLength) return undefined;
  let sb = parseSuperblock(await readAt(superblockOffset, superblockLength));
  // The kernel may be writing the superblock of a mounted filesystem just now.
  for (let retry = 0; retry < 3 && sb && sb.storedChecksum !== sb.computedChecksum; retry++)
    sb = parseSuperblock(await readAt(superblockOffset, superblockLength));
  return sb;
}

export const readExtUsedMap: UsedMapReader = async (readAt, deviceSize, options = {}): Promise<UsedMap> => {
  const { state = 'idle', signal } = options;
  const sb = await readSuperblock(readAt, deviceSize);
  if (sb === undefined) return everythingUsed(deviceSize, 'ext: no superblock at byte 1024');
  const trusted = sb.storedChecksum === sb.computedChecksum;
  const identity = identityOn(sb, deviceSize);
  const givenUp = (reason: string): UsedMap =>
    everythingUsed(deviceSize, `${identity.type}: ${reason}`, trusted ? identity : undefined);

  const problem = superblockProblem(sb, deviceSize, state);
  if (problem !== undefined) return givenUp(problem);
  const reading: ExtReading = { sb, readAt, deviceSize, state, signal };
  let groups: ExtGroups;
  try {
    const doubt = await backupProblem(sb, readAt);
    if (doubt !== undefined) return givenUp(doubt);
    const opened = await openGroups(reading, options);
    if (typeof opened === 'string') return givenUp(opened);
    groups = opened;
  } catch (error) {
    return givenUp(`group descriptors: ${unreadable(error).message}`);
  }

  return {
    filesystem: identity,
    everything: false,
    warnings:
      sb.externalJournal === undefined
        ? []
        : [
            `${identity.type}: its journal (${sb.externalJournal}) is on another device and is not copied with it`,
          ],
    extents: groups.extents(),
    grouped: options.keep === true ? groups : undefined,
  };
};

/**
 * Reads and checks the descriptors: those that were written since an earlier map, or all of them. Returns a string with
 * the fault if there is one.
 */
async function openGroups(reading: ExtReading, options: UsedMapOptions): Promise<ExtGroups | string> {
  const { sb, readAt, state, signal } = reading;
  const { keep = false, earlier } = options;
  const before = earlier?.grouped instanceof ExtGroups ? earlier.grouped : undefined;
  let whyAll = earlier !== undefined && before === undefined ? 'it was another filesystem' : undefined;
  if (earlier !== undefined && before !== undefined) {
    const next = await before.next(reading, earlier.isWritten);
    if (typeof next !== 'string') return next;
    whyAll = next;
  }
  const kept = keep ? new KeptGroups(sb) : undefined;
  const survey = await surveyDescriptors(sb, readAt, signal, (descriptor) => kept?.begin(descriptor));
  if (survey.metadata === undefined) return survey.layoutProblem ?? 'its metadata is out of place';
  if (survey.descriptorProblem !== undefined && state !== 'live') return survey.descriptorProblem;
  return new ExtGroups(reading, survey.metadata, { kept, whyAll });
}
