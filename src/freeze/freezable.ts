/**
 * Which filesystems the FIFREEZE ioctl works on: those whose driver has a freeze operation (fs/ioctl.c,
 * ioctl_fsfreeze; looked up in the drivers' super_operations). vfat, exfat, ntfs and udf have none.
 */
const types: ReadonlySet<string> = new Set([
  'ext2',
  'ext3',
  'ext4',
  'xfs',
  'btrfs',
  'f2fs',
  'jfs',
  'nilfs2',
  'gfs2',
  'reiserfs',
  'bcachefs',
]);

export function freezable(filesystemType: string): boolean {
  return types.has(filesystemType);
}
