/**
 * Configures the AWS SDK's client: no retries of its own (retry.ts has them), no checksums that only AWS understands,
 * and a time limit for every request. The checksum setting is `WHEN_REQUIRED` (docs.aws.amazon.com), because Ceph
 * answers 411 to the trailers of other settings.
 */
import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { S3Client } from '@aws-sdk/client-s3';
import { AgentError, errnoCode } from '../../base/errors.ts';
import { checkTrusted, readTrusted } from '../../base/trusted-file.ts';
import { BoundedHandler } from './s3-bounds.ts';

export interface S3Settings {
  /** Default: `us-east-1`, which every server except AWS accepts. */
  readonly region?: string | undefined;
  /** Both or neither. Without them the SDK uses the environment, AWS's shared files and AWS's instance metadata. */
  readonly accessKeyId?: string | undefined;
  readonly secretAccessKey?: string | undefined;
  readonly sessionToken?: string | undefined;
  /** Profile in AWS's shared files. */
  readonly profile?: string | undefined;
  /** PEM file of the authorities to trust instead of the default ones. */
  readonly caFile?: string | undefined;
  /** Time limit for a connection in milliseconds. Default: 10 s. */
  readonly connectTimeoutMs?: number | undefined;
  /** Milliseconds without data in either direction, after which a request fails. Default: 60 s. */
  readonly idleTimeoutMs?: number | undefined;
  /** Larger objects are uploaded in parts. In bytes; default: 32 MiB. */
  readonly multipartThreshold?: number | undefined;
  /** Bytes of a part, at least 5 MiB (a rule of S3). Default: 16 MiB. */
  readonly partSize?: number | undefined;
  /** Allows plain http to other machines too. */
  readonly allowPlainHttp?: boolean | undefined;
}

/** A client and the handler of its requests. */
export interface S3Connection {
  readonly client: S3Client;
  close(): void;
}

/** Does not connect yet. Throws FILE_ERROR (the CA file), UNSAFE_FILE or BAD_USAGE. */
export async function connectS3(endpoint: string, settings: S3Settings): Promise<S3Connection> {
  // Callers limit their parallel requests. A pool with a queue would time waiting requests out.
  const pool = { keepAlive: true, maxSockets: Infinity, maxFreeSockets: 16 };
  const ca = settings.caFile === undefined ? undefined : await readCaFile(settings.caFile);
  const httpAgent = new HttpAgent(pool);
  const httpsAgent = new HttpsAgent({ ...pool, ...(ca === undefined ? {} : { ca }) });
  const credentials = credentialsOf(settings);
  if (credentials === undefined) await checkCredentialsOfAws();
  const idleTimeoutMs = settings.idleTimeoutMs ?? 60_000;
  const client = new S3Client({
    endpoint,
    forcePathStyle: true,
    region: settings.region ?? 'us-east-1',
    ...(credentials === undefined ? {} : { credentials }),
    ...(settings.profile === undefined ? {} : { profile: settings.profile }),
    maxAttempts: 1,
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    // It needs a separate connection for each request, and six seconds with servers that do not know it.
    expectContinueHeader: false,
    defaultsMode: 'standard',
    requestHandler: new BoundedHandler(
      {
        httpAgent,
        httpsAgent,
        connectionTimeout: settings.connectTimeoutMs ?? 10_000,
        // Limits silence, not the whole request: a large object may take long on a slow line.
        socketTimeout: idleTimeoutMs,
        logger: silent,
      },
      idleTimeoutMs,
    ),
    logger: silent,
  });
  return {
    client,
    close: () => {
      client.destroy();
      httpAgent.destroy();
      httpsAgent.destroy();
    },
  };
}

function credentialsOf(settings: S3Settings) {
  const { accessKeyId, secretAccessKey, sessionToken } = settings;
  if (accessKeyId === undefined && secretAccessKey === undefined) return undefined;
  if (accessKeyId === undefined || secretAccessKey === undefined)
    throw new AgentError(
      'BAD_USAGE',
      `The settings of the vault have ${accessKeyId === undefined ? 'a secret key without its access key' : 'an access key without its secret key'}`,
    );
  return { accessKeyId, secretAccessKey, ...(sessionToken === undefined ? {} : { sessionToken }) };
}

/** Checks the file that the SDK reads by itself. Throws UNSAFE_FILE. */
async function checkCredentialsOfAws(): Promise<void> {
  if (process.env['AWS_ACCESS_KEY_ID'] !== undefined) return;
  const path = process.env['AWS_SHARED_CREDENTIALS_FILE'] ?? join(homedir(), '.aws/credentials');
  await checkTrusted(path, 'secret').catch((thrown: unknown) => {
    // The SDK reports a file that it cannot read.
    if (thrown instanceof AgentError) throw thrown;
  });
}

async function readCaFile(path: string): Promise<string> {
  const read = await readTrusted(path, 'configuration').catch((thrown: unknown) => {
    if (thrown instanceof AgentError) throw thrown;
    throw new AgentError('FILE_ERROR', `The CA file ${path} cannot be read: ${errnoCode(thrown) ?? '?'}`, {
      cause: thrown,
    });
  });
  const pem = read.toString('utf8');
  if (!pem.includes('-----BEGIN CERTIFICATE-----'))
    throw new AgentError('FILE_ERROR', `The CA file ${path} has no certificate in PEM form`);
  return pem;
}

const nothing = (): void => undefined;
const silent = { trace: nothing, debug: nothing, info: nothing, warn: nothing, error: nothing };
