/** Maps error codes of the API to HTTP statuses. Scripts should branch on the code in the document instead. */
import type { ErrorCode } from '../base/error-codes.ts';

/** Returns the HTTP status for an error code. The default is 422: the request was understood but cannot be done. */
export function httpStatus(code: ErrorCode): number {
  switch (code) {
    case 'BAD_USAGE':
    case 'NO_DEVICES':
    case 'BAD_TARGET':
      return 400;
    case 'NO_PERMISSION':
      return 403;
    case 'DEVICE_NOT_FOUND':
    case 'JOB_NOT_FOUND':
    case 'CHAIN_NOT_FOUND':
      return 404;
    case 'DEVICE_AMBIGUOUS':
    case 'DEVICE_BUSY':
    case 'SAME_DEVICE':
    case 'ALREADY_FROZEN':
    case 'JOB_NOT_RUNNING':
      return 409;
    case 'INTERNAL':
      return 500;
    case 'NOT_SUPPORTED':
      return 501;
    case 'TARGET_UNREACHABLE':
    case 'NBD_CONNECTION_LOST':
    case 'NBD_PROTOCOL':
    case 'NBD_EXPORT_UNKNOWN':
    case 'NBD_REFUSED':
    case 'NBD_SERVER_ERROR':
    case 'NBD_TLS':
      return 502;
    case 'CANCELLED':
      return 503;
    default:
      return 422;
  }
}
