/**
 * The numbers of the NBD protocol, named as in the specification (`NBD_OPT.GO` is NBD_OPT_GO). Each table has a function
 * that turns a number into its name.
 * Specified in doc/proto.md of github.com/NetworkBlockDevice/nbd, section "Values".
 */
import { flagsNamer, valueNamer } from './names.ts';

/** 64-bit magics are stored as bytes, since they are only compared. */
export const INIT_PASSWD = Buffer.from('NBDMAGIC', 'latin1');
/** Part of the newstyle greeting, and the start of every option request. */
export const IHAVEOPT = Buffer.from('IHAVEOPT', 'latin1');
/** Part of the oldstyle greeting. */
export const CLISERV_MAGIC = Buffer.from('0000420281861253', 'hex');
/** Start of every option reply. */
export const OPTION_REPLY_MAGIC = Buffer.from('0003e889045565a9', 'hex');

export const REQUEST_MAGIC = 0x25609513;
export const SIMPLE_REPLY_MAGIC = 0x67446698;
export const STRUCTURED_REPLY_MAGIC = 0x668e33ef;

/** The port that IANA has assigned. */
export const DEFAULT_PORT = 10809;
/** Longest string (export name, error message, …) in bytes. */
export const MAX_STRING = 4096;
/** Largest payload that every server without a limit of its own should take: 32 MiB. */
export const DEFAULT_MAX_PAYLOAD = 2 ** 25;
/** Most descriptors in one block status chunk. */
export const MAX_STATUS_DESCRIPTORS = 2 ** 20;
/** The only metadata context that the specification defines. */
export const BASE_ALLOCATION = 'base:allocation';

/** Handshake flags, 16 bits, sent by the server. */
export const NBD_HANDSHAKE = { FIXED_NEWSTYLE: 1 << 0, NO_ZEROES: 1 << 1 } as const;

/** Client flags, 32 bits. */
export const NBD_CLIENT = { FIXED_NEWSTYLE: 1 << 0, NO_ZEROES: 1 << 1 } as const;

/** Transmission flags, 16 bits, sent by the server. */
export const NBD_FLAG = {
  HAS_FLAGS: 1 << 0,
  READ_ONLY: 1 << 1,
  SEND_FLUSH: 1 << 2,
  SEND_FUA: 1 << 3,
  ROTATIONAL: 1 << 4,
  SEND_TRIM: 1 << 5,
  SEND_WRITE_ZEROES: 1 << 6,
  SEND_DF: 1 << 7,
  CAN_MULTI_CONN: 1 << 8,
  SEND_RESIZE: 1 << 9,
  SEND_CACHE: 1 << 10,
  SEND_FAST_ZERO: 1 << 11,
  BLOCK_STATUS_PAYLOAD: 1 << 12,
} as const;
export const transmissionFlagNames = flagsNamer('NBD_FLAG_', NBD_FLAG);

/** Option types. */
export const NBD_OPT = {
  EXPORT_NAME: 1,
  ABORT: 2,
  LIST: 3,
  PEEK_EXPORT: 4,
  STARTTLS: 5,
  INFO: 6,
  GO: 7,
  STRUCTURED_REPLY: 8,
  LIST_META_CONTEXT: 9,
  SET_META_CONTEXT: 10,
  EXTENDED_HEADERS: 11,
} as const;
export const optionName = valueNamer('NBD_OPT_', NBD_OPT);

/** Option reply types; errors have bit 31 set. */
export const NBD_REP = {
  ACK: 1,
  SERVER: 2,
  INFO: 3,
  META_CONTEXT: 4,
  ERR_UNSUP: 2 ** 31 + 1,
  ERR_POLICY: 2 ** 31 + 2,
  ERR_INVALID: 2 ** 31 + 3,
  ERR_PLATFORM: 2 ** 31 + 4,
  ERR_TLS_REQD: 2 ** 31 + 5,
  ERR_UNKNOWN: 2 ** 31 + 6,
  ERR_SHUTDOWN: 2 ** 31 + 7,
  ERR_BLOCK_SIZE_REQD: 2 ** 31 + 8,
  ERR_TOO_BIG: 2 ** 31 + 9,
  ERR_EXT_HEADER_REQD: 2 ** 31 + 10,
} as const;
export const optionReplyName = valueNamer('NBD_REP_', NBD_REP);

export function isErrorReply(type: number): boolean {
  return type >= 2 ** 31;
}

/** Information types of NBD_REP_INFO. */
export const NBD_INFO = { EXPORT: 0, NAME: 1, DESCRIPTION: 2, BLOCK_SIZE: 3 } as const;
export const infoName = valueNamer('NBD_INFO_', NBD_INFO);

/** Request types. */
export const NBD_CMD = {
  READ: 0,
  WRITE: 1,
  DISC: 2,
  FLUSH: 3,
  TRIM: 4,
  CACHE: 5,
  WRITE_ZEROES: 6,
  BLOCK_STATUS: 7,
  RESIZE: 8,
} as const;
export const commandName = valueNamer('NBD_CMD_', NBD_CMD);

/** Command flags, 16 bits. */
export const NBD_CMD_FLAG = {
  FUA: 1 << 0,
  NO_HOLE: 1 << 1,
  DF: 1 << 2,
  REQ_ONE: 1 << 3,
  FAST_ZERO: 1 << 4,
  PAYLOAD_LEN: 1 << 5,
} as const;
export const commandFlagNames = flagsNamer('NBD_CMD_FLAG_', NBD_CMD_FLAG);

/** Structured reply flags, 16 bits. */
export const NBD_REPLY_FLAG = { DONE: 1 << 0 } as const;

/** Structured reply chunk types; errors have bit 15 set. */
export const NBD_REPLY_TYPE = {
  NONE: 0,
  OFFSET_DATA: 1,
  OFFSET_HOLE: 2,
  BLOCK_STATUS: 5,
  BLOCK_STATUS_EXT: 6,
  ERROR: 2 ** 15 + 1,
  ERROR_OFFSET: 2 ** 15 + 2,
} as const;
export const replyTypeName = valueNamer('NBD_REPLY_TYPE_', NBD_REPLY_TYPE);

export function isErrorChunk(type: number): boolean {
  return type >= 2 ** 15;
}

/** Flags of a base:allocation descriptor. */
export const NBD_STATE = { HOLE: 1 << 0, ZERO: 1 << 1 } as const;

/** Error values of replies. The numbers are those of Linux, but only these are valid. */
export const NBD_ERROR = {
  EPERM: 1,
  EIO: 5,
  ENOMEM: 12,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ENOTSUP: 95,
  ESHUTDOWN: 108,
} as const;
export const errorName = valueNamer('NBD_', NBD_ERROR);
