/**
 * The options of a job, as the API and the configuration file give them. One table holds their names, types and
 * ranges. The schema of the API, the check of the file and the list in docs/dattod.md all come from it.
 */
import { defaultJobOptions, type JobOptions } from '../backup/job.ts';
import { AgentError } from '../base/errors.ts';
import type { JobOptionsDocument } from './documents.ts';

export interface Field {
  readonly schema:
    | { readonly type: 'integer'; readonly minimum: number; readonly maximum: number }
    | { readonly type: 'string'; readonly enum: readonly string[] }
    | { readonly type: 'string'; readonly pattern: string }
    | { readonly type: 'boolean' };
  readonly about: string;
}

const hook = (about: string): Field => ({ schema: { type: 'string', pattern: '^/' }, about });

export const jobOptionFields = {
  max_freeze_ms: {
    schema: { type: 'integer', minimum: 1, maximum: 600_000 },
    about: 'longest allowed freeze in milliseconds',
  },
  rate: {
    schema: { type: 'integer', minimum: 1, maximum: Number.MAX_SAFE_INTEGER },
    about: 'limit in bytes per second over the whole job',
  },
  impact: {
    schema: { type: 'string', enum: ['low', 'normal', 'high'] },
    about: 'how much the job may slow other work on the machine',
  },
  on_read_error: {
    schema: { type: 'string', enum: ['fail', 'zero'] },
    about: 'how to treat a bad sector: fail the job, or copy zeros with a warning',
  },
  connections: {
    schema: { type: 'integer', minimum: 1, maximum: 16 },
    about: 'connections per target, if it allows several',
  },
  reconnect_ms: {
    schema: { type: 'integer', minimum: 0, maximum: 86_400_000 },
    about: 'how long a lost target is waited for, in milliseconds',
  },
  verify: {
    schema: { type: 'string', enum: ['none', 'sample', 'full'] },
    about: 'how much is read back from the target and compared',
  },
  tracker: {
    schema: { type: 'string', enum: ['auto', 'ebpf', 'blktrace', 'none'] },
    about: 'the tracker of changed blocks; auto takes the best that the kernel offers',
  },
  snapshot: {
    schema: { type: 'string', enum: ['auto', 'never'] },
    about: 'whether an untracked volume is read from a temporary LVM snapshot, if possible',
  },
  snapshot_size: {
    schema: { type: 'integer', minimum: 4_194_304, maximum: Number.MAX_SAFE_INTEGER },
    about: 'bytes for the snapshot of a thick volume; a tenth of it, and at least 1 GiB, unless given',
  },
  fingerprints: {
    schema: { type: 'boolean' },
    about: 'whether a full backup takes fingerprints; without, the next backup to its target is full again',
  },
  fallback: {
    schema: { type: 'boolean' },
    about: 'whether an incremental backup that is not possible becomes a differential one, or fails',
  },
  trim: {
    schema: { type: 'boolean' },
    about: 'whether the target frees the space of blocks that are no longer in use',
  },
  max_passes: {
    schema: { type: 'integer', minimum: 1, maximum: 100 },
    about: 'copying passes before the freeze, at most',
  },
  pre_freeze_hook: hook('executable to run before the freeze'),
  post_thaw_hook: hook('executable to run after the thaw'),
  frozen_hook: hook('executable to run while everything is frozen'),
} as const satisfies Record<keyof JobOptionsDocument, Field>;

/** The JSON schema of `JobOptionsDocument`. */
export const jobOptionsSchema = {
  type: 'object',
  additionalProperties: false,
  properties: Object.fromEntries(
    Object.entries(jobOptionFields).map(([name, field]) => [name, field.schema]),
  ),
};

/** Checks options read from a file. `where` is the start of each message. Throws BAD_USAGE that names the key. */
export function checkJobOptions(value: unknown, where: string): JobOptionsDocument {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new AgentError('BAD_USAGE', `${where} is not an object of options`);
  for (const [key, given] of Object.entries(value)) {
    const field: Field | undefined = Object.hasOwn(jobOptionFields, key)
      ? jobOptionFields[key as keyof JobOptionsDocument]
      : undefined;
    if (field === undefined)
      throw new AgentError('BAD_USAGE', `${where}: unknown key "${key}"`, {
        hint: `known are ${Object.keys(jobOptionFields).join(', ')}`,
      });
    if (!fits(field, given))
      throw new AgentError(
        'BAD_USAGE',
        `${where}: "${key}" is ${JSON.stringify(given)}, not ${rangeText(field)}`,
      );
  }
  return value;
}

function fits({ schema }: Field, given: unknown): boolean {
  if (schema.type === 'integer')
    return (
      typeof given === 'number' &&
      Number.isInteger(given) &&
      given >= schema.minimum &&
      given <= schema.maximum
    );
  if (schema.type === 'boolean') return typeof given === 'boolean';
  return (
    typeof given === 'string' && ('enum' in schema ? schema.enum.includes(given) : given.startsWith('/'))
  );
}

/** Describes in words the values that a field takes. */
export function rangeText({ schema }: Field): string {
  if (schema.type === 'integer') {
    const open = schema.maximum === Number.MAX_SAFE_INTEGER;
    return open
      ? `whole number from ${schema.minimum}`
      : `whole number from ${schema.minimum} to ${schema.maximum}`;
  }
  if (schema.type === 'boolean') return 'true or false';
  return 'enum' in schema ? `one of ${schema.enum.join(', ')}` : 'absolute path';
}

/**
 * Merges the documents into the options of a job. If several documents have a key, the first one wins. A key that is
 * in none of them gets its value from `defaultJobOptions`.
 */
export function toJobOptions(...documents: readonly JobOptionsDocument[]): JobOptions {
  const given: JobOptionsDocument = documents.reduceRight(
    (wanted, document) => ({ ...wanted, ...document }),
    {},
  );
  const defaults = defaultJobOptions;
  return {
    maxFreezeMs: given.max_freeze_ms ?? defaults.maxFreezeMs,
    rate: given.rate ?? defaults.rate,
    impact: given.impact ?? defaults.impact,
    onReadError: given.on_read_error ?? defaults.onReadError,
    connections: given.connections ?? defaults.connections,
    reconnectMs: given.reconnect_ms ?? defaults.reconnectMs,
    verify: given.verify ?? defaults.verify,
    tracker: given.tracker ?? defaults.tracker,
    snapshot: given.snapshot ?? defaults.snapshot,
    snapshotSize: given.snapshot_size ?? defaults.snapshotSize,
    fingerprints: given.fingerprints ?? defaults.fingerprints,
    fallback: given.fallback ?? defaults.fallback,
    trim: given.trim ?? defaults.trim,
    maxPasses: given.max_passes ?? defaults.maxPasses,
    preFreezeHook: given.pre_freeze_hook ?? defaults.preFreezeHook,
    postThawHook: given.post_thaw_hook ?? defaults.postThawHook,
    frozenHook: given.frozen_hook ?? defaults.frozenHook,
  };
}
