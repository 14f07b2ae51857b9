/** A partition and a partition table, whatever the format on the disk (GPT or MBR). */
export interface Partition {
  /** As in `/dev/sdaN`. */
  readonly number: number;
  /** Bytes. */
  readonly start: number;
  readonly size: number;
  /** PARTUUID as blkid and lsblk print it; `xxxxxxxx-NN` with MBR; undefined where the disk has no identifier. */
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
  /** Byte ranges besides the partitions that the table itself lies in, where they may be anywhere (EBRs). */
  readonly tableSectors: readonly { readonly offset: number; readonly length: number }[];
  /** Why the table cannot be relied on: overlaps, ranges outside the disk, no valid header. */
  readonly problem: string | undefined;
  /** For people; the table holds nonetheless. */
  readonly warnings: readonly string[];
}
