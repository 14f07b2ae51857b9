/** A record of the XFS log, as its header describes it. */
export interface LogRecord {
  /** Number of the header's block. */
  readonly block: number;
  readonly cycle: number;
  /** Number of blocks of the header, and of the data. */
  readonly headerBlocks: number;
  readonly dataBlocks: number;
  readonly operations: number;
  readonly tailCycle: number;
  readonly tailBlock: number;
  readonly uuid: Buffer;
}
