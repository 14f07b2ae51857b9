/**
 * The logical volumes of this machine as `lvs` reports them (lvmreport(7)), and its commands. The tools of lvm2 do all
 * that is done to volumes: their metadata is theirs alone.
 */
import { AgentError } from '../../base/errors.ts';
import { endingOf, findProgram, type ProgramResult, runProgram } from '../../linux/program.ts';

export interface Volume {
  readonly name: string;
  readonly group: string;
  /** As the kernel has them in the device's UUID: without hyphens. */
  readonly uuid: string;
  readonly groupUuid: string;
  /** Bytes. */
  readonly size: number;
  /** `linear`, `striped`, `thin`, `thin-pool`, `raid1`, … */
  readonly segmentType: string;
  /** lv_attr: the first letter is the kind of volume. */
  readonly attributes: string;
  /** Name of the thin pool; empty for what is in none. */
  readonly pool: string;
  /** Bytes that no volume of the group has, and the size of its extents. */
  readonly groupFree: number;
  readonly extentSize: number;
  /** Of thin pools: how full, in percent; undefined where it does not apply. */
  readonly dataPercent: number | undefined;
  readonly metadataPercent: number | undefined;
  /** `/dev/mapper/…`. */
  readonly path: string;
  /** Shared between machines, exported, or with a disk missing: why it is better left alone; empty otherwise. */
  readonly trouble: string;
}

const columns = [
  ...['lv_name', 'lv_uuid', 'lv_size', 'segtype', 'lv_attr', 'pool_lv', 'data_percent', 'metadata_percent'],
  ...['lv_dm_path', 'vg_name', 'vg_uuid', 'vg_free', 'vg_extent_size'],
  ...['vg_shared', 'vg_clustered', 'vg_exported', 'vg_partial'],
] as const;

type Row = Readonly<Record<(typeof columns)[number], string>>;

/** Longest look at the volumes, milliseconds. */
const lookMs = 30_000;

/**
 * No copy of the metadata is written, neither in /etc/lvm nor to syslog, which may be frozen; and dmeventd is not told
 * of a volume that is gone again soon.
 */
const quiet = ['--config', 'backup{backup=0 archive=0} log{syslog=0} activation{monitoring=0}'];

/** Reads the report of `lvs --reportformat json --units b --nosuffix`. Throws SyntaxError for what is no report. */
export function parseVolumes(report: string): Volume[] {
  const { report: parts } = JSON.parse(report) as { report: readonly { lv: readonly Row[] }[] };
  return parts.flatMap(({ lv }) => lv).map(toVolume);
}

function toVolume(row: Row): Volume {
  const percent = (text: string): number | undefined => (text === '' ? undefined : Number(text));
  const troubles = {
    'is shared between machines': row.vg_shared !== '' || row.vg_clustered !== '',
    'is exported': row.vg_exported !== '',
    'lacks a disk': row.vg_partial !== '',
  };
  return {
    // Hidden volumes are in brackets.
    name: row.lv_name.replace(/^\[(.*)\]$/, '$1'),
    group: row.vg_name,
    uuid: row.lv_uuid.replaceAll('-', ''),
    groupUuid: row.vg_uuid.replaceAll('-', ''),
    size: Number(row.lv_size),
    segmentType: row.segtype,
    attributes: row.lv_attr,
    pool: row.pool_lv.replace(/^\[(.*)\]$/, '$1'),
    groupFree: Number(row.vg_free),
    extentSize: Number(row.vg_extent_size),
    dataPercent: percent(row.data_percent),
    metadataPercent: percent(row.metadata_percent),
    path: row.lv_dm_path,
    trouble: Object.entries(troubles).find(([, is]) => is)?.[0] ?? '',
  };
}

/** The UUID that the kernel has for the device of a volume itself, no part of one: `LVM-`, group's, volume's. */
export function volumeUuid(dmUuid: string | undefined): string | undefined {
  return dmUuid !== undefined && /^LVM-[A-Za-z0-9]{64}$/.test(dmUuid) ? dmUuid : undefined;
}

export function dmUuidOf({ uuid, groupUuid }: Pick<Volume, 'uuid' | 'groupUuid'>): string {
  return `LVM-${groupUuid}${uuid}`;
}

/** Throws SNAPSHOT_FAILED. */
export async function listVolumes(): Promise<Volume[]> {
  const flags = ['--all', '--reportformat', 'json', '--units', 'b', '--nosuffix'];
  const result = await lvm(['lvs', ...flags, '--options', columns.join(',')], { killAfterMs: lookMs });
  if (result.code !== 0) throw lvmFailure('lvs', result);
  try {
    return parseVolumes(result.stdout);
  } catch (cause) {
    throw new AgentError('SNAPSHOT_FAILED', 'the report of lvs cannot be read', { cause });
  }
}

/** Runs a command of lvm2. Throws SNAPSHOT_FAILED where it is not installed. */
export async function lvm(
  args: readonly string[],
  options: { readonly killAfterMs?: number } = {},
): Promise<ProgramResult> {
  return runProgram(installed('lvm'), [...args, ...quiet], options);
}

/** What device-mapper says of a device; empty where there is none. */
export async function dmStatus(dmUuid: string): Promise<string> {
  // Without a flush: it only looks, and waits for nobody.
  const args = ['status', '--noflush', '--uuid', dmUuid];
  const { code, stdout } = await runProgram(installed('dmsetup'), args, { killAfterMs: lookMs });
  return code === 0 ? stdout.trim() : '';
}

export function lvmInstalled(): boolean {
  return findProgram('lvm') !== undefined && findProgram('dmsetup') !== undefined;
}

function installed(name: string): string {
  const path = findProgram(name);
  if (path === undefined)
    throw new AgentError('SNAPSHOT_FAILED', `${name} is not installed`, { hint: 'install the package lvm2' });
  return path;
}

/** The last lines of what it said: the reason comes last. */
export function lvmFailure(command: string, result: ProgramResult): AgentError {
  const said = result.stderr
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('WARNING'));
  return new AgentError(
    'SNAPSHOT_FAILED',
    `${command} ${endingOf(result)}: ${said.slice(-3).join(' ') || 'it gave no reason'}`,
    { hint: 'run it by hand to see more; --snapshot never does without a snapshot' },
  );
}
