/** A record of the XFS log, as its header describes it. */
export interface LogRecord {
  /** Block of its header. */
  readonly block: number;
  readonly cycle: number;
  /** Blocks of header and of data. */
  readonly headerBlocks: number;
  readonly dataBlocks: number;
  readonly operations: number;
  readonly tailCycle: number;
  readonly tailBlock: number;
  readonly uuid: Buffer;
}
