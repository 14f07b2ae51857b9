/** The options of a job, as the API and the configuration file give them. */
import * as Type from 'typebox';
import { absolutePath, choice, closed, flag, wholeNumber } from './schema.ts';

/** A missing option comes from the daemon's configuration, or else from the defaults. */
export const jobOptions = closed({
  max_freeze_ms: Type.Optional(wholeNumber(1, 600_000, 'longest allowed freeze in milliseconds')),
  rate: Type.Optional(
    wholeNumber(1, Number.MAX_SAFE_INTEGER, 'limit in bytes per second over the whole job'),
  ),
  impact: Type.Optional(
    choice(['low', 'normal', 'high'], 'how much the job may slow other work on the machine'),
  ),
  on_read_error: Type.Optional(
    choice(['fail', 'zero'], 'how to treat a bad sector: fail the job, or copy zeros with a warning'),
  ),
  connections: Type.Optional(wholeNumber(1, 16, 'connections per target, if it allows several')),
  reconnect_ms: Type.Optional(
    wholeNumber(0, 86_400_000, 'how long a lost target is waited for, in milliseconds'),
  ),
  verify: Type.Optional(
    choice(['none', 'sample', 'full'], 'how much is read back from the target and compared'),
  ),
  tracker: Type.Optional(
    choice(
      ['auto', 'ebpf', 'blktrace', 'none'],
      'the tracker of changed blocks; auto takes the best that the kernel offers',
    ),
  ),
  snapshot: Type.Optional(
    choice(
      ['auto', 'never'],
      'whether an untracked volume is read from a temporary LVM snapshot, if possible',
    ),
  ),
  snapshot_size: Type.Optional(
    wholeNumber(
      4_194_304,
      Number.MAX_SAFE_INTEGER,
      'bytes for the snapshot of a thick volume; a tenth of it, and at least 1 GiB, unless given',
    ),
  ),
  fingerprints: Type.Optional(
    flag('whether a full backup takes fingerprints; without, the next backup to its target is full again'),
  ),
  fallback: Type.Optional(
    flag('whether an incremental backup that is not possible becomes a differential one, or fails'),
  ),
  trim: Type.Optional(flag('whether the target frees the space of blocks that are no longer in use')),
  max_passes: Type.Optional(wholeNumber(1, 100, 'copying passes before the freeze, at most')),
  pre_freeze_hook: Type.Optional(absolutePath('executable to run before the freeze')),
  post_thaw_hook: Type.Optional(absolutePath('executable to run after the thaw')),
  frozen_hook: Type.Optional(absolutePath('executable to run while everything is frozen')),
});
export type JobOptionsDocument = Type.Static<typeof jobOptions>;
