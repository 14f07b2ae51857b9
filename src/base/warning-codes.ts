/**
 * The one table of the codes of job warnings (`JobWarning.code`), for scripts. `docs/errors.md` lists the same
 * codes, and a test holds the two together in both directions. A job with warnings succeeded; `dattocli`
 * exits 5, or 1 under `--strict`.
 */
const table = {
  TARGET_CANNOT_FLUSH: 'The target offers no flush, so it cannot confirm that the image is durable.',
  NOT_VERIFIED: 'The target cannot be read, so nothing was read back from it.',
  RECONNECTED:
    'The connection to the target was lost and came back; samples of what it held before were the same.',
  FEWER_CONNECTIONS: 'The target refused additional connections, so the job ran with fewer than wanted.',
  FILESYSTEM_WARNING:
    'Something about the filesystem that the image cannot show, such as an external journal.',
  NOT_FROZEN:
    'A mounted filesystem cannot be frozen; what is written to it meanwhile may be torn in the image.',
  IN_USE:
    'Something that cannot be frozen holds the device; what it writes meanwhile may be torn in the image.',
  NOT_ONE_INSTANT:
    'Something that cannot be frozen wrote to the device while it was read; the image may be torn.',
  FREEZE_OVERFLOW:
    'More changed than memory may hold, also after further passes, so the target was written inside the freeze.',
  SNAPSHOT_LEFT: 'The temporary LVM snapshot could not be removed; the next start of the daemon tries again.',
  POST_THAW_HOOK_FAILED: 'The hook that runs after the thaw failed.',
  FELL_BACK: 'An incremental became a differential, or a differential a full, for the reason given.',
  TRACKING_LOST:
    'Tracking ended during the job; the devices were compared instead, or will be by the next one.',
  CANNOT_CONVERGE:
    'A tracked device is written so fast that the freeze lasted more than half of `--max-freeze`.',
  EVERYTHING_USED: 'What is free could not be told from what is used, so every block was copied.',
  NOT_TRIMMED: 'The target cannot free space (`--trim`), or refused to; the image is right all the same.',
  READ_ERRORS: 'Bad sectors were written as zeros (`--on-read-error zero`).',
} as const satisfies Record<string, string>;

export type WarningCode = keyof typeof table;

export const warningSummaries: Readonly<Record<WarningCode, string>> = table;
