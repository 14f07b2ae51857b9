/** A partition and a partition table, for both formats on the disk (GPT and MBR). */
export interface Partition {
  /** The N in `/dev/sdaN`. */
  readonly number: number;
  /** Bytes. */
  readonly start: number;
  readonly size: number;
  /** PARTUUID as blkid and lsblk print it; `xxxxxxxx-NN` with MBR; undefined if the disk has no identifier. */
  readonly uuid: string | undefined;
  readonly label: string | undefined;
  /** PARTTYPE as lsblk prints it: a GUID, or `0x83`. */
  readonly type: string;
  /** An extended partition, which holds the logical ones. */
  readonly container: boolean;
}

export interface PartitionTable {
  readonly kind: 'gpt' | 'mbr';
  /** PTUUID. */
  readonly uuid: string | undefined;
  readonly partitions: readonly Partition[];
  /** Byte ranges outside the partitions that belong to the table and may be anywhere (EBRs). */
  readonly tableSectors: readonly { readonly offset: number; readonly length: number }[];
  /** Why the table is not reliable: overlaps, ranges outside the disk, no valid header. */
  readonly problem: string | undefined;
  /** For the user. The table is valid nonetheless. */
  readonly warnings: readonly string[];
}
