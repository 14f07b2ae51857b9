/**
 * Feature bits of ext2/3/4 (Linux fs/ext4/ext4.h). A bit that is not listed here is unknown, and makes everything used:
 * see docs/formats/ext.md.
 */
export const compat = {
  dir_prealloc: 0x1,
  imagic_inodes: 0x2,
  has_journal: 0x4,
  ext_attr: 0x8,
  resize_inode: 0x10,
  dir_index: 0x20,
  sparse_super2: 0x200,
  fast_commit: 0x400,
  stable_inodes: 0x800,
  orphan_file: 0x1000,
} as const;

export const incompat = {
  filetype: 0x2,
  needs_recovery: 0x4,
  journal_dev: 0x8,
  meta_bg: 0x10,
  extent: 0x40,
  '64bit': 0x80,
  mmp: 0x100,
  flex_bg: 0x200,
  ea_inode: 0x400,
  dirdata: 0x1000,
  metadata_csum_seed: 0x2000,
  large_dir: 0x4000,
  inline_data: 0x8000,
  encrypt: 0x10000,
  casefold: 0x20000,
} as const;

export const roCompat = {
  sparse_super: 0x1,
  large_file: 0x2,
  btree_dir: 0x4,
  huge_file: 0x8,
  uninit_bg: 0x10,
  dir_nlink: 0x20,
  extra_isize: 0x40,
  quota: 0x100,
  bigalloc: 0x200,
  metadata_csum: 0x400,
  'read-only': 0x1000,
  project: 0x2000,
  shared_blocks: 0x4000,
  verity: 0x8000,
  orphan_present: 0x10000,
} as const;

export interface FeatureSet {
  readonly compat: number;
  readonly incompat: number;
  readonly roCompat: number;
}

/** Names the bits that this reader does not know; empty if it knows all of them. */
export function unknownFeatures(features: FeatureSet): string[] {
  return [
    ...unknown('incompatible', features.incompat, incompat),
    ...unknown('read-only compatible', features.roCompat, roCompat),
    ...unknown('compatible', features.compat, compat),
  ];
}

function unknown(kind: string, bits: number, known: Readonly<Record<string, number>>): string[] {
  const rest = (bits & ~Object.values(known).reduce((all, bit) => all | bit, 0)) >>> 0;
  return rest === 0 ? [] : [`${kind} feature 0x${rest.toString(16)}`];
}

/**
 * Returns the type as blkid names it. ext2 has no journal and ext3 has one; neither has any newer feature. `jbd` is an
 * external journal (libblkid/src/superblocks/ext.c of util-linux).
 */
export function extType(features: FeatureSet, flags: number): 'ext2' | 'ext3' | 'ext4' | 'ext4dev' | 'jbd' {
  if (features.incompat & incompat.journal_dev) return 'jbd';
  const oldRoCompat = roCompat.sparse_super | roCompat.large_file | roCompat.btree_dir;
  const oldIncompat = incompat.filetype | incompat.meta_bg;
  const journal = (features.compat & compat.has_journal) !== 0;
  const ext3Incompat = oldIncompat | incompat.needs_recovery;
  const newer =
    (features.roCompat & ~oldRoCompat) !== 0 ||
    (features.incompat & ~(journal ? ext3Incompat : oldIncompat)) !== 0;
  if (!newer) return journal ? 'ext3' : 'ext2';
  return flags & testFilesystem ? 'ext4dev' : 'ext4';
}

const testFilesystem = 0x4;
