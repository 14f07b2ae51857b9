/**
 * A vault's objects in an S3 bucket, at AWS or any other server. It uses only plain requests: put, get with a range,
 * head, list (version 2), delete, and uploads in parts. It also sends `If-None-Match: *`, but does not rely on it
 * alone. Each request is tried once; retry.ts repeats it. Every upload has a `Content-MD5`, the only checksum that
 * all servers verify.
 *
 * Import this file lazily: the SDK takes long to load.
 */
import {
  DeleteObjectCommand,
  GetObjectCommand,
  HeadBucketCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
} from '@aws-sdk/client-s3';
import { MiB } from '../../base/bytes.ts';
import { type Clock, systemClock } from '../../base/clock.ts';
import { AgentError } from '../../base/errors.ts';
import { type S3Location, isOnThisMachine } from './location.ts';
import {
  DAY_MS,
  type Cleaned,
  type CleanOptions,
  type GetOptions,
  type ListOptions,
  type ObjectData,
  type ObjectStore,
  type PutOptions,
  type StoreOptions,
  type StoredObject,
  checkKey,
  checkPrefix,
  checkRange,
  dataLength,
  dataParts,
  expectSame,
  isKey,
  objectMissing,
  rangeWithin,
} from './object-store.ts';
import { bodyOf, contentMd5, readBody } from './s3-body.ts';
import { ListProgress, largestObject } from './s3-bounds.ts';
import { type S3Connection, type S3Settings, connectS3 } from './s3-client.ts';
import {
  type Condition,
  type RequestOptions,
  type Sender,
  abortUploads,
  putInParts,
} from './s3-multipart.ts';
import { nameOf, s3Failure, statusOf } from './s3-errors.ts';

const ContentType = 'application/octet-stream';

/** Sends no request yet. Throws BAD_TARGET, BAD_USAGE or FILE_ERROR. */
export async function openS3Store(
  location: S3Location,
  settings: S3Settings = {},
  clock: Clock = systemClock,
): Promise<ObjectStore> {
  const plain = location.endpoint.startsWith('http:');
  if (plain && !isOnThisMachine(location.endpoint) && settings.allowPlainHttp !== true)
    throw new AgentError('BAD_TARGET', `${location.endpoint} uses plain http to another machine`, {
      hint: 'use vault+s3://… (https), or allow plain http in the settings of this vault',
    });
  return new S3Store(location, settings, await connectS3(location.endpoint, settings), clock);
}

class S3Store implements ObjectStore {
  readonly name: string;
  readonly #bucket: string;
  /** Prefix of each key: empty, or `prefix/`. */
  readonly #before: string;
  readonly #connection: S3Connection;
  readonly #clock: Clock;
  readonly #threshold: number;
  readonly #partSize: number;
  /** An object was found in the bucket, so a 404 is about the key. */
  #bucketSeen = false;
  /** False after the server refused a condition. */
  #takesConditions = true;
  /** Cleanup work of cancelled puts that is still running. */
  readonly #later = new Set<Promise<void>>();

  constructor(location: S3Location, settings: S3Settings, connection: S3Connection, clock: Clock) {
    const { endpoint, bucket, prefix } = location;
    this.#before = prefix === '' ? '' : `${prefix}/`;
    this.name = `s3://${new URL(endpoint).host}/${bucket}${prefix === '' ? '' : `/${prefix}`}`;
    this.#bucket = bucket;
    this.#connection = connection;
    this.#clock = clock;
    this.#threshold = settings.multipartThreshold ?? 32 * MiB;
    this.#partSize = settings.partSize ?? 16 * MiB;
  }

  async put(key: string, data: ObjectData, options: PutOptions = {}): Promise<void> {
    checkKey(key);
    await this.#explained(`writing ${key}`, options, async () => {
      if (options.isNew !== true) return this.#put(key, data, options, (request) => request({}));
      // Some servers ignore an unknown condition silently.
      const isThere = (await this.head(key, options)) !== undefined;
      if (!isThere)
        try {
          await this.#put(key, data, options, (request) => this.#onlyNew(request));
          return;
        } catch (thrown) {
          if (statusOf(thrown) !== 412) throw thrown;
        }
      return expectSame(this, key, data, options);
    });
  }

  /** Sends a request with the condition that the object does not exist, if the server accepts conditions. */
  async #onlyNew<T>(request: (condition: Condition) => Promise<T>): Promise<T> {
    if (!this.#takesConditions) return request({});
    try {
      return await request({ IfNoneMatch: '*' });
    } catch (thrown) {
      if (!refusesCondition(thrown)) throw thrown;
      const result = await request({});
      this.#takesConditions = false;
      return result;
    }
  }

  async #put(
    key: string,
    data: ObjectData,
    options: StoreOptions,
    under: <T>(request: (condition: Condition) => Promise<T>) => Promise<T>,
  ): Promise<void> {
    const parts = dataParts(data);
    const object = this.#object(key);
    if (dataLength(data) > this.#threshold)
      return putInParts({
        object,
        under,
        parts,
        partSize: this.#partSize,
        send: this.#sender(options),
        client: this.#client,
        signal: options.signal,
        later: (work) => {
          this.#later.add(work);
          void work.then(() => this.#later.delete(work));
        },
      });
    const ContentLength = dataLength(data);
    const ContentMD5 = await contentMd5(parts);
    const { ETag } = await under((condition) =>
      this.#send(options, (how) =>
        this.#client.send(
          new PutObjectCommand({
            ...object,
            ...condition,
            Body: bodyOf(parts),
            ContentLength,
            ContentMD5,
            ContentType,
          }),
          how,
        ),
      ),
    );
    if (ETag === undefined) throw notS3(this.name);
  }

  async get(key: string, options: GetOptions = {}): Promise<Buffer> {
    checkKey(key);
    checkRange(options);
    return this.#explained(`reading ${key}`, options, async () => {
      // An empty range cannot be requested.
      if (options.length === 0 || options.suffix === 0) {
        if ((await this.head(key, options)) === undefined) throw objectMissing(this.name, key);
        return Buffer.alloc(0);
      }
      const Range = rangeHeader(options);
      try {
        const found = await this.#send(options, (how) =>
          this.#client.send(new GetObjectCommand({ ...this.#object(key), Range }), how),
        );
        this.#bucketSeen = true;
        // A server may answer with the whole object.
        const most = found.ContentRange === undefined ? undefined : (options.length ?? options.suffix);
        const body = await readBody(found.Body, found.ContentLength, most ?? largestObject);
        if (Range === undefined || found.ContentRange !== undefined) return body;
        const { start, end } = rangeWithin(body.length, options);
        return body.subarray(start, end);
      } catch (thrown) {
        if (nameOf(thrown) === 'InvalidRange' || statusOf(thrown) === 416) return Buffer.alloc(0);
        if (nameOf(thrown) === 'NoSuchKey') throw objectMissing(this.name, key, thrown);
        throw thrown;
      }
    });
  }

  async head(key: string, options: StoreOptions = {}): Promise<StoredObject | undefined> {
    checkKey(key);
    return this.#explained(`checking ${key}`, options, async () => {
      try {
        const found = await this.#send(options, (how) =>
          this.#client.send(new HeadObjectCommand(this.#object(key)), how),
        );
        this.#bucketSeen = true;
        return { key, size: found.ContentLength ?? 0, modified: found.LastModified?.getTime() ?? 0 };
      } catch (thrown) {
        if (statusOf(thrown) !== 404) throw thrown;
        await this.#ensureBucket(options);
        return undefined;
      }
    });
  }

  async *list(prefix: string, options: ListOptions = {}): AsyncGenerator<StoredObject> {
    checkPrefix(prefix);
    for await (const { key, size, modified } of this.#pages(prefix, options))
      if (isKey(key)) yield { key, size, modified };
  }

  async *foreign(options: StoreOptions = {}): AsyncGenerator<string> {
    for await (const { key } of this.#pages('', options)) if (!isKey(key)) yield key;
  }

  async delete(key: string, options: StoreOptions = {}): Promise<void> {
    checkKey(key);
    await this.#explained(`deleting ${key}`, options, () =>
      this.#send(options, (how) => this.#client.send(new DeleteObjectCommand(this.#object(key)), how)),
    );
  }

  async cleanTemporary(options: CleanOptions = {}): Promise<Cleaned> {
    // The server refuses requests if clocks differ by more than minutes, so this machine's clock is sufficient.
    const before = this.#clock.now() - (options.olderThanMs ?? DAY_MS);
    const place = { Bucket: this.#bucket, Prefix: this.#before };
    return this.#explained('removing unfinished uploads', options, async () => ({
      count: await abortUploads(place, before, this.#sender(options)),
      bytes: 0,
    }));
  }

  async close(): Promise<void> {
    await Promise.all(this.#later);
    this.#connection.close();
  }

  get #client(): S3Connection['client'] {
    return this.#connection.client;
  }

  #object(key: string): { Bucket: string; Key: string } {
    return { Bucket: this.#bucket, Key: this.#before + key };
  }

  async *#pages(prefix: string, options: ListOptions): AsyncGenerator<StoredObject> {
    let ContinuationToken: string | undefined;
    const place = {
      Bucket: this.#bucket,
      Prefix: this.#before + prefix,
      // Foreign keys may contain characters that XML cannot represent.
      EncodingType: 'url',
      ...(options.after === undefined || options.after === ''
        ? {}
        : { StartAfter: this.#before + options.after }),
    } as const;
    const progress = new ListProgress(this.name);
    do {
      const page = await this.#explained('listing it', options, () =>
        this.#send(options, (how) =>
          this.#client.send(new ListObjectsV2Command({ ...place, ContinuationToken }), how),
        ),
      );
      // An empty listing would look like a vault that has lost everything.
      if (page.IsTruncated === undefined) throw notS3(this.name);
      const found = (page.Contents ?? []).map(({ Key = '', Size = 0, LastModified }) => ({
        key: this.#keyOf(Key),
        size: Size,
        modified: LastModified?.getTime() ?? 0,
      }));
      progress.page(
        found.map(({ key }) => key),
        page.IsTruncated ? page.NextContinuationToken : undefined,
      );
      yield* found;
      ContinuationToken = page.IsTruncated ? page.NextContinuationToken : undefined;
      if (page.IsTruncated && ContinuationToken === undefined)
        throw new AgentError(
          'VAULT_STORE_ERROR',
          `${this.name}: a listing ends without a token for the next page`,
        );
    } while (ContinuationToken !== undefined);
  }

  /** Returns the key of a listed name. A listing of another place is not from an S3 server. */
  #keyOf(listed: string): string {
    let key;
    try {
      key = decodeURIComponent(listed.replaceAll('+', ' '));
    } catch {
      throw notS3(this.name);
    }
    if (!key.startsWith(this.#before)) throw notS3(this.name);
    return key.slice(this.#before.length);
  }

  /** HEAD does not distinguish a missing key from a missing bucket. */
  async #ensureBucket(options: StoreOptions): Promise<void> {
    if (this.#bucketSeen) return;
    try {
      await this.#send(options, (how) =>
        this.#client.send(new HeadBucketCommand({ Bucket: this.#bucket }), how),
      );
    } catch (thrown) {
      if (statusOf(thrown) !== 404) throw thrown;
      throw Object.assign(new Error('no bucket', { cause: thrown }), { name: 'NoSuchBucket' });
    }
    this.#bucketSeen = true;
  }

  #sender(options: StoreOptions): Sender {
    return (request) => this.#send(options, (how) => request(this.#client, how));
  }

  /** Sends one request. If the clock is wrong, it is corrected from the answer and the request is repeated. */
  async #send<T>({ signal }: StoreOptions, request: (how: RequestOptions) => Promise<T>): Promise<T> {
    signal?.throwIfAborted();
    const how = signal === undefined ? {} : { abortSignal: signal };
    try {
      return await request(how);
    } catch (thrown) {
      if (nameOf(thrown) !== 'RequestTimeTooSkewed') throw thrown;
      return request(how);
    }
  }

  async #explained<T>(what: string, { signal }: StoreOptions, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (thrown) {
      signal?.throwIfAborted();
      throw s3Failure(this.name, what, thrown);
    }
  }
}

/** Codes of a 400 with which servers refuse an unknown header. Other codes are about this request only. */
const headerRefusals: ReadonlySet<string> = new Set(['NotImplemented', 'InvalidArgument', 'InvalidRequest']);

function refusesCondition(thrown: unknown): boolean {
  const status = statusOf(thrown);
  return status === 501 || (status === 400 && headerRefusals.has(nameOf(thrown)));
}

/** A proxy or a portal may answer 200 to everything. */
function notS3(store: string): AgentError {
  return new AgentError('VAULT_STORE_ERROR', `${store}: the answer is not from an S3 server`, {
    hint: 'check the endpoint, and whether a proxy answers in its place',
  });
}

function rangeHeader({ offset = 0, length, suffix }: GetOptions): string | undefined {
  if (suffix !== undefined) return `bytes=-${suffix}`;
  if (length !== undefined) return `bytes=${offset}-${offset + length - 1}`;
  return offset === 0 ? undefined : `bytes=${offset}-`;
}
