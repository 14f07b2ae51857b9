/** `verify POINT`: checks one device of a point at one level. The result is stored with the point (vault/points/checks.ts). */
import type { PointCheck } from '../../vault/points/checks.ts';
import { AgentError } from '../../base/errors.ts';
import type { ImageSpec } from '../image/open-image.ts';
import type { AttachMethod, MountSubject } from '../mount/mount-record.ts';
import type { Lost } from '../target/thread-messages.ts';
import { checkFilesystems } from './filesystems.ts';
import { verifyReachable } from './reachable.ts';
import { verifyRead } from './read.ts';

export interface VerifyOptions {
  readonly image: ImageSpec;
  readonly subject: MountSubject;
  readonly level: 'reachable' | 'read' | 'filesystem';
  /** The share of the data to read, for `read`. Default 1. */
  readonly sample?: number;
  readonly sectorSize: number;
  readonly runDirectory: string;
  readonly method?: AttachMethod | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: (done: number, total: number) => void;
}

export interface Verification {
  readonly level: VerifyOptions['level'];
  /** The share that was checked, 0 to 1. */
  readonly coverage: number;
  /** `unfinished`: nothing could be checked. */
  readonly outcome: PointCheck['outcome'];
  /** Texts for the user. */
  readonly problems: readonly string[];
  readonly lost: readonly Lost[];
  /** Texts for the user about parts that this level cannot check. */
  readonly notes: readonly string[];
}

/** Returns the problems of the point in the result. Throws the errors that prevent the check. */
export async function verifyImage(options: VerifyOptions): Promise<Verification> {
  const { level, image, signal } = options;
  switch (level) {
    case 'reachable': {
      if (image.kind !== 'point')
        throw new AgentError(
          'BAD_USAGE',
          `${image.path} is an image file, but the level "reachable" checks only recovery points of a vault`,
        );
      const { lost } = await verifyReachable(image, { signal });
      return conclude(level, 1, lost, [], []);
    }
    case 'read': {
      const { held, read, lost } = await verifyRead(options);
      return conclude(level, held === 0 ? 1 : read / held, lost, [], []);
    }
    case 'filesystem': {
      const checked = await checkFilesystems(options);
      const problems = checked.flatMap(({ partition, type, problems: each }) =>
        each.map((text) => `${placeText(partition)}${type ?? ''}: ${text}`),
      );
      const notes = checked
        .filter(({ skipped }) => skipped)
        .map(({ partition, type }) => `${placeText(partition)}${type ?? 'unknown content'} has no checker`);
      const looked = checked.filter(({ skipped }) => !skipped).length;
      return conclude(level, checked.length === 0 ? 0 : looked / checked.length, [], problems, notes);
    }
  }
}

function placeText(partition: number | undefined): string {
  return partition === undefined ? '' : `partition ${partition}, `;
}

function conclude(
  level: VerifyOptions['level'],
  coverage: number,
  lost: readonly Lost[],
  problems: readonly string[],
  notes: readonly string[],
): Verification {
  const all = [
    ...lost.map(({ offset, length, reason }) => `${length} bytes at ${offset}: ${reason}`),
    ...problems,
  ];
  const well = coverage === 0 ? 'unfinished' : 'whole';
  return { level, coverage, outcome: all.length === 0 ? well : 'damaged', problems: all, lost, notes };
}
