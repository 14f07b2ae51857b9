/**
 * Classifies failures of S3 requests. Messages of servers are often empty (mostly with Ceph), so the name, the status
 * and the errno decide, and the text is ours.
 */
import { type ErrorCode } from '../../base/error-codes.ts';
import { AgentError, errnoCode } from '../../base/errors.ts';

interface Meaning {
  readonly code: ErrorCode;
  readonly why: string;
  readonly hint?: string;
}

/** By the `<Code>` of the answer, or the name that the SDK gives its own failures. */
const byName: Readonly<Record<string, Meaning>> = {
  SignatureDoesNotMatch: {
    code: 'VAULT_DENIED',
    why: 'the secret key does not belong to this access key',
    hint: 'check the secret access key in the settings, the environment or ~/.aws/credentials',
  },
  InvalidAccessKeyId: {
    code: 'VAULT_DENIED',
    why: 'the server does not know the access key',
    hint: 'check the access key ID, and that this is the right server',
  },
  ExpiredToken: { code: 'VAULT_DENIED', why: 'the session token has expired', hint: 'get new credentials' },
  InvalidToken: { code: 'VAULT_DENIED', why: 'the session token is not valid', hint: 'get new credentials' },
  RequestTimeTooSkewed: {
    code: 'VAULT_DENIED',
    why: 'the clocks of this machine and of the server differ too much',
    hint: 'set the clock of this machine (timedatectl, chrony)',
  },
  UserSuspended: { code: 'VAULT_DENIED', why: 'the user is suspended' },
  AccountProblem: {
    code: 'VAULT_DENIED',
    why: 'the account has a problem',
    hint: 'ask the operator of the server',
  },
  CredentialsProviderError: {
    code: 'VAULT_DENIED',
    why: 'no credentials were found',
    hint: 'give an access key in the settings, in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or in ~/.aws/credentials',
  },
  QuotaExceeded: quota('a quota is reached'),
  TooManyBuckets: quota('a quota is reached'),
  XMinioStorageFull: quota('the server has no room left'),
  InsufficientStorage: quota('the server has no room left'),
  NoSuchBucket: {
    code: 'VAULT_NOT_FOUND',
    why: 'there is no such bucket',
    hint: 'create the bucket first, or check its name and the endpoint',
  },
  InvalidBucketName: { code: 'VAULT_NOT_FOUND', why: 'this server does not allow this bucket name' },
  PermanentRedirect: region('the bucket is at another endpoint'),
  TemporaryRedirect: region('the bucket is at another endpoint'),
  AuthorizationHeaderMalformed: region('the server expects another region'),
  IllegalLocationConstraintException: region('the server expects another region'),
  // Each of these may succeed the next time.
  BadDigest: { code: 'VAULT_UNREACHABLE', why: 'the data was changed in transit' },
  IncompleteBody: { code: 'VAULT_UNREACHABLE', why: 'less data arrived than was sent' },
  RequestTimeout: { code: 'VAULT_UNREACHABLE', why: 'the server waited too long for data' },
  NoSuchUpload: { code: 'VAULT_UNREACHABLE', why: 'the upload was aborted in the meantime' },
  InvalidPart: { code: 'VAULT_UNREACHABLE', why: 'the server lost a part of the upload' },
  ConditionalRequestConflict: { code: 'VAULT_UNREACHABLE', why: 'another request conflicts' },
  OperationAborted: { code: 'VAULT_UNREACHABLE', why: 'another request conflicts' },
};

const tlsErrno =
  /^(ERR_TLS_|ERR_SSL_|CERT_|SELF_SIGNED|DEPTH_ZERO|UNABLE_TO_|HOSTNAME_MISMATCH|EPROTO|INVALID_CA|PATH_LENGTH)/;

/** The fields of an SDK error that are used here. */
interface Answer {
  readonly name?: unknown;
  readonly message?: unknown;
  readonly $metadata?: { readonly httpStatusCode?: unknown };
}

/** Returns the HTTP status of an answer; undefined if there was no answer. */
export function statusOf(thrown: unknown): number | undefined {
  const status = (thrown as Answer | null)?.$metadata?.httpStatusCode;
  return typeof status === 'number' ? status : undefined;
}

export function nameOf(thrown: unknown): string {
  const name = (thrown as Answer | null)?.name;
  return typeof name === 'string' ? name : '';
}

/** `store` is the store's name, `what` the request, such as `writing packs/ab`. */
export function s3Failure(store: string, what: string, thrown: unknown): AgentError {
  if (thrown instanceof AgentError) return thrown;
  const { code, why, hint } = meaningOf(thrown);
  return new AgentError(code, `${store}: ${what}: ${why}`, {
    ...(hint === undefined ? {} : { hint }),
    cause: thrown,
  });
}

function meaningOf(thrown: unknown): Meaning {
  const name = nameOf(thrown);
  const known = Object.hasOwn(byName, name) ? byName[name] : undefined;
  if (known !== undefined) return known;
  const status = statusOf(thrown);
  const errno = errnoCode(thrown) ?? errnoCode((thrown as Error | null)?.cause);
  if (errno !== undefined && tlsErrno.test(errno)) return tls(errno, thrown);
  if (status === undefined || name === 'TimeoutError') return silence(name, errno, thrown);
  return byStatus(status, name);
}

function byStatus(status: number, name: string): Meaning {
  const said = /^[A-Z]\w+$/.test(name) && !/^(Unknown|UnknownError|Error)$/.test(name) ? ` ${name}` : '';
  const answered = `the server answered ${status}${said}`;
  if (status === 507) return quota(answered);
  if (status >= 500 || status === 429 || status === 408 || name === 'SlowDown')
    return { code: 'VAULT_UNREACHABLE', why: answered, hint: 'the server has trouble; try again later' };
  if (status === 401 || status === 403)
    return {
      code: 'VAULT_DENIED',
      why: `not allowed (${answered.replace('the server answered ', '')})`,
      hint: 'check the policies of bucket and user: reading needs s3:GetObject and s3:ListBucket, writing s3:PutObject',
    };
  if (status === 301 || status === 307) return region(answered);
  if (status === 405) return { code: 'VAULT_READ_ONLY', why: answered };
  return {
    code: 'VAULT_STORE_ERROR',
    why: status >= 200 && status < 300 ? 'the answer is not from an S3 server' : answered,
    hint: 'check that the endpoint is an S3 server',
  };
}

function silence(name: string, errno: string | undefined, thrown: unknown): Meaning {
  const text = thrown instanceof Error ? thrown.message : String(thrown);
  if (name === 'TimeoutError' && errno === undefined)
    return {
      code: 'VAULT_UNREACHABLE',
      why: 'the server stopped answering',
      hint: 'check that the server runs',
    };
  switch (errno) {
    case 'ECONNREFUSED':
      return {
        code: 'VAULT_UNREACHABLE',
        why: 'no server listens there',
        hint: 'check that the server runs',
      };
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return { code: 'VAULT_UNREACHABLE', why: 'the host name is not known', hint: 'check DNS' };
    case 'ECONNRESET':
    case 'EPIPE':
      return { code: 'VAULT_UNREACHABLE', why: `the connection was closed (${errno})` };
    case undefined:
      return { code: 'VAULT_STORE_ERROR', why: text };
    default:
      return /^E[A-Z0-9]+$/.test(errno)
        ? { code: 'VAULT_UNREACHABLE', why: `the server cannot be reached (${errno})` }
        : { code: 'VAULT_STORE_ERROR', why: text };
  }
}

function tls(errno: string, thrown: unknown): Meaning {
  const text = thrown instanceof Error ? thrown.message : errno;
  if (/ERR_SSL_WRONG_VERSION_NUMBER|EPROTO|ERR_SSL_PACKET/.test(errno))
    return {
      code: 'VAULT_TLS',
      why: `the port does not use TLS (${errno})`,
      hint: 'check the port; for plain http use vault+s3+http://…',
    };
  return {
    code: 'VAULT_TLS',
    why: `the certificate of the server is not trusted: ${text}`,
    hint: 'set the CA file in the settings of the vault',
  };
}

function quota(why: string): Meaning {
  return { code: 'VAULT_FULL', why, hint: 'raise the quota, or forget recovery points and prune' };
}

function region(why: string): Meaning {
  return { code: 'VAULT_STORE_ERROR', why, hint: 'check the endpoint, and set the region of the bucket' };
}
