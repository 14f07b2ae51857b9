/**
 * What e2fsck and xfs_repair say of a filesystem that has something wrong, without what they always say. Pure.
 *
 * An XFS that was frozen when its image was taken has one transaction in its log, of the superblock alone
 * (docs/formats/xfs.md): xfs_repair calls that a valuable log, and counts free blocks otherwise than the superblock.
 */

/** xfs_repair's talk about what it does. */
const xfsTalk =
  /^(Phase \d|\s+- |No modify flag set|Cannot get host|Repair may fail|the image and the host|$)/;
/** What it says of a log with anything in it, and of the superblock that lies in that log. */
const frozenTalk =
  /^(ALERT: The filesystem has|ignored because|which may be resolved|sb_fdblocks \d+, counted \d+$)/;

/** `frozen`: its log holds the superblock alone, as we read it ourselves. */
export function problemsOfXfs(output: string, frozen: boolean): string[] {
  return output.split('\n').filter((line) => !xfsTalk.test(line) && !(frozen && frozenTalk.test(line)));
}

/** The log holds something, whatever it is. */
export function saysLogIsDirty(output: string): boolean {
  return /^ALERT: The filesystem has/m.test(output);
}

/** e2fsck's talk: version, passes, the summary at the end, and its answers to its own questions. */
const extTalk = /^(e2fsck \d|Pass \d|Pass \dA|.*: \d+\/\d+ files|.*\*{5}|.*Optimize\? no|\s*$)/;

export function problemsOfExt(output: string): string[] {
  return output
    .split('\n')
    .filter((line) => !extTalk.test(line))
    .map((line) => line.trim());
}
