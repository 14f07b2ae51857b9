/** `verify POINT`: one device of a point at one level, as it is kept with the point (vault/points/checks.ts). */
import type { PointCheck } from '../../vault/points/checks.ts';
import { AgentError } from '../../base/errors.ts';
import type { ImageSpec } from '../image/open-image.ts';
import type { AttachMethod, MountSubject } from '../mount/record.ts';
import type { Lost } from '../target/messages.ts';
import { checkFilesystems } from './filesystems.ts';
import { verifyReachable } from './reachable.ts';
import { verifyRead } from './read.ts';

export interface VerifyOptions {
  readonly image: ImageSpec;
  readonly subject: MountSubject;
  readonly level: 'reachable' | 'read' | 'filesystem';
  /** Share of what is read, for `read`. Default 1. */
  readonly sample?: number;
  readonly sectorSize: number;
  readonly runDirectory: string;
  readonly method?: AttachMethod | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: (done: number, total: number) => void;
}

export interface Verification {
  readonly level: VerifyOptions['level'];
  /** Share of what there was to look at, 0 to 1. */
  readonly coverage: number;
  /** `unfinished`: nothing of it could be looked at, so nothing is known. */
  readonly outcome: PointCheck['outcome'];
  /** For people. */
  readonly problems: readonly string[];
  readonly lost: readonly Lost[];
  /** For people, where the level did not say anything about a part of it. */
  readonly notes: readonly string[];
}

/** What is wrong with the point is in the result. Throws what keeps it from being looked at. */
export async function verifyImage(options: VerifyOptions): Promise<Verification> {
  const { level, image, signal } = options;
  switch (level) {
    case 'reachable': {
      if (image.kind !== 'point')
        throw new AgentError(
          'BAD_USAGE',
          `${image.path} is an image file: only what is in a vault can be out of reach`,
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
        .map(
          ({ partition, type }) => `${placeText(partition)}${type ?? 'what it holds'} has no checker here`,
        );
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
