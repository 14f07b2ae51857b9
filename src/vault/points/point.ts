/** The document of a recovery point (docs/formats/vault.md, "Points"). */
import { Fields } from '../fields.ts';
import { AgentError } from '../../base/errors.ts';

export interface Point {
  readonly format: 1;
  /** 32 hexadecimal digits. */
  readonly id: string;
  /** The time of the image by the writer's clock, ISO 8601. */
  readonly finished: string;
  readonly started: string;
  /** UUID of the job. */
  readonly job: string;
  /** `full`, `incremental`, … */
  readonly kind: string;
  /** Version of the program that wrote it. */
  readonly agent: string;
  readonly machine: PointMachine;
  readonly warnings: readonly PointWarning[];
  readonly devices: readonly PointDevice[];
}

export interface PointMachine {
  /** From /etc/machine-id; empty if there is none. */
  readonly id: string;
  /** Host name. */
  readonly name: string;
  readonly boot: BootMode;
  /** Data to rebuild the machine (src/devices/machine-layout.ts), and data of older versions. */
  readonly layout: Readonly<Record<string, unknown>>;
}

export interface PointWarning {
  readonly code: string;
  readonly message: string;
  readonly device?: string;
}

export interface PointDevice {
  readonly path: string;
  /** In bytes. */
  readonly size: number;
  readonly sector_size: number;
  readonly filesystem: PointFilesystem | null;
  readonly partition: PointPartition | null;
  /**
   * Distinguishes the device from its clones. Absent in points of the first versions, and if nothing distinguishes
   * it.
   */
  readonly identity?: string;
  /** Name of the root page: 64 hexadecimal digits. */
  readonly root: string;
  /** Level of the root page. */
  readonly levels: number;
  readonly used_bytes: number;
  /** Bytes that it added to the vault. */
  readonly stored_bytes: number;
  readonly freeze_ms: number;
  readonly consistency: Consistency;
  readonly tracker: string;
  readonly kind: string;
  readonly read_errors: readonly PointReadError[];
  readonly read_only: boolean;
}

/** Absent properties are empty strings. */
export interface PointFilesystem {
  readonly type: string;
  readonly uuid: string;
  readonly label: string;
}

export interface PointPartition {
  /** Path of the disk. */
  readonly disk: string;
  readonly number: number;
  /** In bytes from the start of the disk. */
  readonly start: number;
  /** Empty if there is none. */
  readonly uuid: string;
}

export interface PointReadError {
  readonly offset: number;
  readonly length: number;
}

export type BootMode = (typeof bootModes)[number];
export type Consistency = (typeof consistencies)[number];

const bootModes = ['uefi', 'bios'] as const;
const consistencies = ['idle', 'frozen', 'snapshot', 'torn'] as const;
/** 1024^6 chunks have more bytes than a safe integer can hold. */
const mostLevels = 6;

/** Messages begin with `where`. Unknown fields are left out. Throws VAULT_DAMAGED, VAULT_TOO_NEW. */
export function parsePoint(id: string, document: unknown, where: string): Point {
  const fields = new Fields(document, where);
  const format = fields.integer('format', 1);
  if (format !== 1)
    throw new AgentError('VAULT_TOO_NEW', `${where} has format ${format}; this program knows format 1`, {
      hint: 'use a newer version of this program',
    });
  if (fields.text('id') !== id) throw fields.wrong('id');
  return {
    format,
    id,
    finished: fields.time('finished'),
    started: fields.time('started'),
    job: fields.text('job'),
    kind: fields.text('kind'),
    agent: fields.text('agent'),
    machine: parseMachine(fields.fields('machine')),
    warnings: fields.list('warnings', parseWarning),
    devices: fields.list('devices', parseDevice),
  };
}

function parseMachine(fields: Fields): PointMachine {
  return {
    id: fields.text('id'),
    name: fields.text('name'),
    boot: fields.choice('boot', bootModes),
    layout: fields.object('layout'),
  };
}

function parseWarning(fields: Fields): PointWarning {
  return {
    code: fields.text('code'),
    message: fields.text('message'),
    ...(fields.has('device') ? { device: fields.text('device') } : {}),
  };
}

function parseDevice(fields: Fields): PointDevice {
  return {
    path: fields.text('path'),
    size: fields.integer('size'),
    sector_size: fields.integer('sector_size', 1),
    filesystem: fields.isNull('filesystem') ? null : parseFilesystem(fields.fields('filesystem')),
    partition: fields.isNull('partition') ? null : parsePartition(fields.fields('partition')),
    ...(fields.has('identity') ? { identity: fields.text('identity') } : {}),
    root: fields.text('root', /^[0-9a-f]{64}$/),
    levels: fields.integer('levels', 0, mostLevels),
    used_bytes: fields.integer('used_bytes'),
    stored_bytes: fields.integer('stored_bytes'),
    freeze_ms: fields.number('freeze_ms', 0, Number.MAX_SAFE_INTEGER),
    consistency: fields.choice('consistency', consistencies),
    tracker: fields.text('tracker'),
    kind: fields.text('kind'),
    read_errors: fields.list('read_errors', (each) => ({
      offset: each.integer('offset'),
      length: each.integer('length'),
    })),
    read_only: fields.boolean('read_only'),
  };
}

function parseFilesystem(fields: Fields): PointFilesystem {
  return { type: fields.text('type'), uuid: fields.text('uuid'), label: fields.text('label') };
}

function parsePartition(fields: Fields): PointPartition {
  return {
    disk: fields.text('disk'),
    number: fields.integer('number'),
    start: fields.integer('start'),
    uuid: fields.text('uuid'),
  };
}
