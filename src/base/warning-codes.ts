/**
 * The one table of the codes of job warnings (`JobWarning.code`), for scripts. `docs/errors.md` lists the same
 * codes, and a test checks that both lists are equal. A job with warnings succeeded; `dattocli` exits with 5, or with
 * 1 under `--strict`.
 */
const table = {
  TARGET_CANNOT_FLUSH: 'The target offers no flush, so it cannot confirm that the image is durable.',
  NOT_VERIFIED: 'The target cannot be read, so the image was not verified.',
  RECONNECTED:
    'The connection to the target was lost and restored. Samples of the data that it held before are unchanged.',
  FEWER_CONNECTIONS: 'The target refused additional connections, so the job ran with fewer than wanted.',
  FILESYSTEM_WARNING: 'The image lacks a part of the filesystem, such as an external journal.',
  NOT_FROZEN:
    'A mounted filesystem cannot be frozen. Data that is written to it during the job may be torn in the image.',
  IN_USE:
    'A program that cannot be frozen holds the device. Data that it writes during the job may be torn in the image.',
  NOT_ONE_INSTANT:
    'A program that cannot be frozen wrote to the device while it was read. The image may be torn.',
  FREEZE_OVERFLOW:
    'More blocks changed than memory may hold, even after further passes, so the target was written inside the freeze.',
  SNAPSHOT_LEFT: 'The temporary LVM snapshot could not be removed. The daemon tries again at its next start.',
  POST_THAW_HOOK_FAILED: 'The hook that runs after the thaw failed.',
  FELL_BACK:
    'An incremental backup became a differential one, or a differential backup a full one, for the reason given.',
  TRACKING_LOST:
    'Changed block tracking ended during the job. This job compared the devices instead, or the next one will.',
  CANNOT_CONVERGE:
    'A tracked device is written so fast that the freeze took more than half of `--max-freeze`.',
  EVERYTHING_USED: 'The allocation map could not be read or trusted, so every block was copied.',
  NOT_TRIMMED: 'The target cannot free space (`--trim`), or refused to. The image is right.',
  READ_ERRORS: 'Bad sectors were written as zeros (`--on-read-error zero`).',
} as const satisfies Record<string, string>;

export type WarningCode = keyof typeof table;

/** The codes with their meaning, for docs/errors.md and the schema of a job's status. */
export const warningSummaries: Readonly<Record<WarningCode, string>> = table;
