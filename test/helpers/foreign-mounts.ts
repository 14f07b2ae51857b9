/**
 * A new mount namespace holds a copy of every mount of the machine, also of those that other tests made. Such a copy
 * keeps a device in use after its own test has unmounted it: the loop device cannot be detached before the namespace ends.
 */

/**
 * Shell commands that give up all mounts of loop devices and all FUSE mounts, except those at `keep` (absolute paths).
 * Run them first in a new mount namespace. They run there and not here, since other tests mount at any moment.
 */
export function giveUpForeignMounts(keep: readonly string[] = []): string {
  const kept = keep.map((place) => `'${place}'`).join('|');
  return `
    awk '{
      for (i = 7; $i != "-"; i++);
      if ($(i + 1) ~ /^fuse/ || $(i + 2) ~ /^\\/dev\\/loop/) print $5
    }' /proc/self/mountinfo | tac | while read -r place; do
      # The kernel writes a space as \\040.
      place=$(printf '%b' "$place")
      case "$place" in ${kept === '' ? '' : `${kept}) ;; `}*) umount --lazy "$place" || : ;; esac
    done
  `;
}
