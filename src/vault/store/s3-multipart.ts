/** Uploads large objects in parts, a few in parallel. A failed upload is aborted, so that its parts are not kept. */
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  type CompletedPart,
  CreateMultipartUploadCommand,
  ListMultipartUploadsCommand,
  type S3Client,
  UploadPartCommand,
} from '@aws-sdk/client-s3';
import { AgentError } from '../../base/errors.ts';
import { inParallel } from '../../base/in-parallel.ts';
import { bodyOf, contentMd5, cut } from './s3-body.ts';
import { nameOf } from './s3-errors.ts';

/** Number of parts of one object that are sent in parallel. */
const PARTS_AT_ONCE = 3;
/** Time limit for aborting an upload, in milliseconds. Prune removes the rest. */
const ABORT_MS = 5000;

export interface RequestOptions {
  readonly abortSignal?: AbortSignal;
}

/** Sends a request. `how` is passed on, with the same or another signal. */
export type Sender = <T>(request: (client: S3Client, how: RequestOptions) => Promise<T>) => Promise<T>;

/** No condition, or that the object does not exist yet. */
export interface Condition {
  readonly IfNoneMatch?: '*';
}

export interface PartedUpload {
  readonly object: { readonly Bucket: string; readonly Key: string };
  readonly parts: readonly Uint8Array[];
  /** In bytes. */
  readonly partSize: number;
  readonly send: Sender;
  /** Sends the request that completes the object, with or without a condition. */
  readonly under: <T>(request: (condition: Condition) => Promise<T>) => Promise<T>;
  /** For requests that must be sent although the signal has fired. */
  readonly client: S3Client;
  readonly signal?: AbortSignal | undefined;
  /** Receives work that continues after the upload has failed. It must not reject. */
  readonly later: (work: Promise<void>) => void;
}

/** Rejects with the error of the SDK, or the signal's reason. */
export async function putInParts(upload: PartedUpload): Promise<void> {
  const { object, send, under } = upload;
  const UploadId = await begin(upload);
  try {
    const Parts = await sendParts(upload, UploadId);
    await under((condition) =>
      send((client, how) =>
        client.send(
          new CompleteMultipartUploadCommand({
            ...object,
            ...condition,
            UploadId,
            MultipartUpload: { Parts },
          }),
          how,
        ),
      ),
    );
  } catch (thrown) {
    await giveUp(upload, UploadId);
    throw thrown;
  }
}

/**
 * Returns the ID of a new upload. The signal does not abort this request, because an upload with an unknown ID stays
 * for a day.
 */
async function begin(upload: PartedUpload): Promise<string> {
  const { object, send, signal } = upload;
  const command = new CreateMultipartUploadCommand({ ...object, ContentType: 'application/octet-stream' });
  const create = send((client) => client.send(command)).then(({ UploadId }) => {
    if (UploadId === undefined) throw new AgentError('VAULT_STORE_ERROR', 'the server gave no upload ID');
    return UploadId;
  });
  if (signal === undefined) return create;
  let fire = (): void => undefined;
  const fired = new Promise<never>((_, reject) => {
    fire = () => reject(new Error('cancelled'));
    signal.addEventListener('abort', fire, { once: true });
  });
  try {
    return await Promise.race([create, fired]);
  } catch (thrown) {
    upload.later(create.then((UploadId) => giveUp(upload, UploadId)).catch(() => undefined));
    throw thrown;
  } finally {
    signal.removeEventListener('abort', fire);
  }
}

/** Sends all parts. After a failure no other part is started, and pending parts are awaited. */
async function sendParts(upload: PartedUpload, UploadId: string): Promise<CompletedPart[]> {
  const { object, parts, partSize, send } = upload;
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  const count = Math.ceil(length / partSize);
  const done: CompletedPart[] = new Array<CompletedPart>(count);
  await inParallel(done.keys(), PARTS_AT_ONCE, async (index) => {
    const bytes = cut(parts, index * partSize, Math.min(length, (index + 1) * partSize));
    const ContentLength = bytes.reduce((sum, part) => sum + part.length, 0);
    const PartNumber = index + 1;
    const ContentMD5 = await contentMd5(bytes);
    const { ETag } = await send((client, how) =>
      client.send(
        new UploadPartCommand({
          ...object,
          UploadId,
          PartNumber,
          Body: bodyOf(bytes),
          ContentLength,
          ContentMD5,
        }),
        how,
      ),
    );
    done[index] = { PartNumber, ETag };
  });
  return done;
}

/** Tries to abort the upload, even if the caller's signal has fired. */
async function giveUp({ object, client }: PartedUpload, UploadId: string): Promise<void> {
  const abortSignal = AbortSignal.timeout(ABORT_MS);
  const command = new AbortMultipartUploadCommand({ ...object, UploadId });
  await client.send(command, { abortSignal }).catch(() => undefined);
}

/** Aborts uploads that began before a time (milliseconds since 1970); returns their number. */
export async function abortUploads(
  place: { readonly Bucket: string; readonly Prefix: string },
  before: number,
  send: Sender,
): Promise<number> {
  let count = 0;
  let KeyMarker: string | undefined;
  let UploadIdMarker: string | undefined;
  for (;;) {
    const markers = { KeyMarker, UploadIdMarker };
    const page = await send((client, how) =>
      client.send(new ListMultipartUploadsCommand({ ...place, ...markers }), how),
    );
    for (const { Key, UploadId, Initiated } of page.Uploads ?? []) {
      if (Initiated === undefined || Initiated.getTime() >= before) continue;
      const upload = { Bucket: place.Bucket, Key, UploadId };
      await send((client, how) => client.send(new AbortMultipartUploadCommand(upload), how)).catch(
        (thrown: unknown) => {
          if (nameOf(thrown) !== 'NoSuchUpload') throw thrown;
        },
      );
      count++;
    }
    if (page.IsTruncated !== true) return count;
    KeyMarker = page.NextKeyMarker;
    UploadIdMarker = page.NextUploadIdMarker;
  }
}
