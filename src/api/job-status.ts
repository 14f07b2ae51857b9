/**
 * The status of a job: the document of the API (`/v1/jobs`), of `dattocli --json`, and of the job history. Fields are
 * only ever added. Names are in snake_case, as the predecessor's were.
 */
import * as Type from 'typebox';
import { type WarningCode, warningSummaries } from '../base/warning-codes.ts';
import { errorDocument } from './error.ts';
import { choice, code, count, flag, named, nullable, ref, text, time } from './schema.ts';

/** `verify` writes nothing: it compares the content of the target with the content that it is known to have. */
export const jobKind = (description: string) =>
  choice(['full', 'incremental', 'differential', 'verify'], description);

const snapshotStatus = Type.Object({
  volume: text('`GROUP/NAME`'),
  kind: choice(['thick', 'thin'], 'kind of the snapshot'),
  used: count('bytes of `size` that were in use at the last look, of its own space or of its thin pool'),
  size: count('bytes'),
});

const readErrorRecord = Type.Object({ offset: count('bytes'), length: count('bytes') });

export const deviceStatus = named('DeviceStatus', {
  uuid: text('filesystem UUID, or empty'),
  device: text('path of the device'),
  target: text('URI of the target, without secrets'),
  filesystem: text('type of the filesystem, or empty'),
  kind: jobKind('the kind that was run'),
  fallback_reason: nullable(text('why it differs from the requested kind')),
  tracker: text('the tracker of its writes: `ebpf`, `blktrace` or `none`'),
  device_size: count('bytes of the device'),
  used_bytes: count('bytes of its used blocks, once known'),
  bytes_transferred: count('bytes handled so far: sent, or made zero at the target'),
  bytes_unsynced: count('bytes known to be missing at the target'),
  bytes_sent: count('of the transferred bytes: sent as data'),
  bytes_zero: count('of the transferred bytes: zeros, which were not sent as data'),
  pass: count('number of the current pass, from 1'),
  freeze_ms: nullable(
    Type.Number({
      minimum: 0,
      description: 'length of the last freeze; null while not known, 0 if none was needed',
    }),
  ),
  bytes_verified: count('bytes read back from the target and compared'),
  bytes_mismatched: count('`verify`: of these, bytes of blocks that differ'),
  bytes_unknown: count('`verify`: bytes that could not be compared, free space among them'),
  snapshot: nullable(snapshotStatus, { description: 'the LVM snapshot that it is read from' }),
  bytes_trimmed: count('`trim`: bytes that are free now, and freed at the target'),
  read_errors: Type.Array(readErrorRecord, { description: 'ranges that could not be read' }),
  point: nullable(text('in a vault: ID of the recovery point once it exists')),
  bytes_stored: nullable(count('in a vault: compressed bytes that the vault stored for it')),
});

const jobWarning = Type.Object({
  code: code(Object.keys(warningSummaries) as WarningCode[]),
  message: text('the warning'),
  device: Type.Optional(text('path of the device that it is about')),
});

export const jobStatus = named('JobStatus', {
  uuid: text('UUID of the job'),
  kind: jobKind('the requested kind; the kind that was run is in `devices`'),
  state: choice(
    ['NOT_STARTED', 'IN_PROGRESS', 'SUCCEEDED', 'FAILED', 'CANCELLED', 'UNKNOWN'],
    'state of the job (cli.md); `UNKNOWN` occurs in the history alone',
  ),
  phase: choice(
    ['preparing', 'mapping', 'copying', 'freezing', 'frozen', 'finishing', 'verifying', 'done'],
    'the current work',
  ),
  paused: flag('the job is paused'),
  created_at: time('when the job was requested'),
  finished_at: nullable(time('when the job ended; null while it runs')),
  tracker: text('the tracker of writes: `ebpf`, `blktrace` or `none`'),
  rate: Type.Number({ minimum: 0, description: 'bytes per second over the last seconds; 0 while it rests' }),
  seconds_left: nullable(Type.Number({ minimum: 0, description: 'estimate; null while unknown' })),
  warnings: Type.Array(jobWarning, { description: 'see errors.md' }),
  error: nullable(ref(errorDocument), { description: 'why the job did not succeed' }),
  devices: Type.Array(ref(deviceStatus), { description: 'one for each device' }),
});

export type ReadErrorRecord = Type.Static<typeof readErrorRecord>;
export type DeviceStatus = Type.Static<typeof deviceStatus>;
export type JobWarning = Type.Static<typeof jobWarning>;
export type JobStatus = Type.Static<typeof jobStatus>;
export type JobKind = JobStatus['kind'];
export type BackupKind = Exclude<JobKind, 'verify'>;
export type JobState = JobStatus['state'];
export type JobPhase = JobStatus['phase'];
