/**
 * The one table of the codes of job warnings (`JobWarning.code`), for scripts. `docs/errors.md` lists the same
 * codes, and a test holds the two together in both directions. A job with warnings succeeded; `dattocli`
 * exits 5, or 1 under `--strict`.
 */
const table = {
  TARGET_CANNOT_FLUSH: 'The target offers no flush, so it cannot confirm that the image is durable.',
  EVERYTHING_USED: 'What is free could not be told from what is used, so every block was copied.',
  READ_ERRORS: 'Bad sectors were written as zeros (`--on-read-error zero`).',
} as const satisfies Record<string, string>;

export type WarningCode = keyof typeof table;

export const warningSummaries: Readonly<Record<WarningCode, string>> = table;
