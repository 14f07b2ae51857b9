/**
 * The AWS SDK's client as this program wants it: no retries of its own (retry.ts has them), no checksums that only
 * AWS understands (docs.aws.amazon.com calls the settings `WHEN_REQUIRED`; Ceph answers 411 to the trailers that
 * others bring), and an end to every hang.
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
  /** Default `us-east-1`, which every server but AWS takes. */
  readonly region?: string | undefined;
  /** Both or neither; without them the SDK looks in the environment, in AWS's shared files and at AWS's machines. */
  readonly accessKeyId?: string | undefined;
  readonly secretAccessKey?: string | undefined;
  readonly sessionToken?: string | undefined;
  /** Which profile of AWS's shared files. */
  readonly profile?: string | undefined;
  /** PEM file of the authorities to trust instead of the well known ones. */
  readonly caFile?: string | undefined;
  /** Milliseconds until a connection has to stand. Default 10 s. */
  readonly connectTimeoutMs?: number | undefined;
  /** Milliseconds without a byte in either direction, after which a request fails. Default 60 s. */
  readonly idleTimeoutMs?: number | undefined;
  /** Objects larger than this go up in parts, bytes. Default 32 MiB. */
  readonly multipartThreshold?: number | undefined;
  /** Bytes of a part, at least 5 MiB (a rule of S3). Default 16 MiB. */
  readonly partSize?: number | undefined;
  /** Plain http also to other machines than this one. */
  readonly allowPlainHttp?: boolean | undefined;
}

/** A client and what its requests go through. */
export interface S3Connection {
  readonly client: S3Client;
  close(): void;
}

/** Throws FILE_ERROR (the CA file), UNSAFE_FILE or BAD_USAGE. Connects to nobody yet. */
export async function connectS3(endpoint: string, settings: S3Settings): Promise<S3Connection> {
  // Callers bound how much they ask for at once; a pool that queues would time waiting requests out.
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
    // It costs a connection of its own for each request, and six seconds with servers that do not know it.
    expectContinueHeader: false,
    defaultsMode: 'standard',
    requestHandler: new BoundedHandler(
      {
        httpAgent,
        httpsAgent,
        connectionTimeout: settings.connectTimeoutMs ?? 10_000,
        // Of silence, not of the whole request: a slow line may take long over a large object.
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
      `The settings of the vault have ${accessKeyId === undefined ? 'a secret key without its access key' : 'an access key without its secret'}`,
    );
  return { accessKeyId, secretAccessKey, ...(sessionToken === undefined ? {} : { sessionToken }) };
}

/** The file that the SDK reads by itself. Throws UNSAFE_FILE. */
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
    throw new AgentError('FILE_ERROR', `The CA file ${path} holds no certificate in PEM form`);
  return pem;
}

const nothing = (): void => undefined;
const silent = { trace: nothing, debug: nothing, info: nothing, warn: nothing, error: nothing };
