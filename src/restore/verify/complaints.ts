/**
 * Extracts the problems from the output of e2fsck and xfs_repair, without their usual messages. Pure.
 *
 * An XFS that was frozen when its image was taken has one transaction in its log, of the superblock alone
 * (docs/formats/xfs.md). xfs_repair then reports a log with valuable changes, and another count of free blocks than the
 * superblock.
 */

/** Lines in which xfs_repair reports its progress. */
const xfsTalk =
  /^(Phase \d|\s+- |No modify flag set|Cannot get host|Repair may fail|the image and the host|$)/;
/** Lines about a log that is not empty, and about the superblock in that log. */
const frozenTalk =
  /^(ALERT: The filesystem has|ignored because|which may be resolved|sb_fdblocks \d+, counted \d+$)/;

/** Returns the problems. `frozen`: our own reader found only the superblock in the log. */
export function problemsOfXfs(output: string, frozen: boolean): string[] {
  return output.split('\n').filter((line) => !xfsTalk.test(line) && !(frozen && frozenTalk.test(line)));
}

/** Whether xfs_repair reports a log that is not empty. */
export function saysLogIsDirty(output: string): boolean {
  return /^ALERT: The filesystem has/m.test(output);
}

/** Usual lines of e2fsck: version, passes, the summary at the end, and answers to its own questions. */
const extTalk = /^(e2fsck \d|Pass \d|Pass \dA|.*: \d+\/\d+ files|.*\*{5}|.*Optimize\? no|\s*$)/;

export function problemsOfExt(output: string): string[] {
  return output
    .split('\n')
    .filter((line) => !extTalk.test(line))
    .map((line) => line.trim());
}
