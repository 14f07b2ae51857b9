/** Large objects go up in parts, a few at once; an upload that fails is aborted, so that its parts are not kept. */
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
import { bodyOf, contentMd5, cut } from './s3-body.ts';
import { nameOf } from './s3-errors.ts';

/** Parts of one object on their way at once. */
const PARTS_AT_ONCE = 3;
/** Milliseconds that giving up an upload may take; what is left of it then, prune removes. */
const ABORT_MS = 5000;

export interface RequestOptions {
  readonly abortSignal?: AbortSignal;
}

/** Sends a request; `how` is passed on, with or without another signal. */
export type Sender = <T>(request: (client: S3Client, how: RequestOptions) => Promise<T>) => Promise<T>;

/** Nothing, or that there be no such object yet. */
export interface Condition {
  readonly IfNoneMatch?: '*';
}

export interface PartedUpload {
  readonly object: { readonly Bucket: string; readonly Key: string };
  readonly parts: readonly Uint8Array[];
  /** Bytes. */
  readonly partSize: number;
  readonly send: Sender;
  /** Makes the request that completes the object, under a condition or not. */
  readonly under: <T>(request: (condition: Condition) => Promise<T>) => Promise<T>;
  /** For what has to be sent although the signal has fired. */
  readonly client: S3Client;
  readonly signal?: AbortSignal | undefined;
  /** Gets work that goes on after the upload has failed, and does not reject. */
  readonly later: (work: Promise<void>) => void;
}

/** Rejects with what the SDK threw, or the signal's reason. */
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

/** The id of a new upload. The signal does not end the request itself: an upload whose id nobody learns stays for a day. */
async function begin(upload: PartedUpload): Promise<string> {
  const { object, send, signal } = upload;
  const command = new CreateMultipartUploadCommand({ ...object, ContentType: 'application/octet-stream' });
  const create = send((client) => client.send(command)).then(({ UploadId }) => {
    if (UploadId === undefined) throw new AgentError('VAULT_STORE_ERROR', 'the server named no upload');
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

/** All parts; where one fails no other is begun, and those under way are waited for. */
async function sendParts(upload: PartedUpload, UploadId: string): Promise<CompletedPart[]> {
  const { object, parts, partSize, send } = upload;
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  const count = Math.ceil(length / partSize);
  const done: CompletedPart[] = new Array<CompletedPart>(count);
  let next = 0;
  let failed = false;
  const worker = async (): Promise<void> => {
    while (next < count && !failed) {
      const index = next++;
      const bytes = cut(parts, index * partSize, Math.min(length, (index + 1) * partSize));
      const ContentLength = bytes.reduce((sum, part) => sum + part.length, 0);
      const PartNumber = index + 1;
      try {
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
      } catch (thrown) {
        failed = true;
        throw thrown;
      }
    }
  };
  const results = await Promise.allSettled(Array.from({ length: PARTS_AT_ONCE }, worker));
  for (const result of results) if (result.status === 'rejected') throw result.reason;
  return done;
}

/** Aborts the upload as well as it goes, also where the caller's signal has fired. */
async function giveUp({ object, client }: PartedUpload, UploadId: string): Promise<void> {
  const abortSignal = AbortSignal.timeout(ABORT_MS);
  const command = new AbortMultipartUploadCommand({ ...object, UploadId });
  await client.send(command, { abortSignal }).catch(() => undefined);
}

/** Aborts the uploads that began before a moment (milliseconds since 1970); returns how many. */
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
