/**
 * The logical volumes of this machine, as `lvs` reports them (lvmreport(7)), and the commands of lvm2. Only the tools
 * of lvm2 change volumes, since only they may write the metadata.
 */
import { AgentError } from '../../base/errors.ts';
import { endingOf, findProgram, type ProgramResult, runProgram } from '../../linux/program.ts';

export interface Volume {
  readonly name: string;
  readonly group: string;
  /** Without hyphens, as in the kernel's UUID of the device. */
  readonly uuid: string;
  readonly groupUuid: string;
  /** Bytes. */
  readonly size: number;
  /** `linear`, `striped`, `thin`, `thin-pool`, `raid1`, … */
  readonly segmentType: string;
  /** lv_attr. The first letter is the kind of volume. */
  readonly attributes: string;
  /** Name of the thin pool. Empty if the volume is in none. */
  readonly pool: string;
  /** Free bytes in the volume group, and the size of its extents. */
  readonly groupFree: number;
  readonly extentSize: number;
  /** Thin pools only: how full, in percent. Undefined for other volumes. */
  readonly dataPercent: number | undefined;
  readonly metadataPercent: number | undefined;
  /** `/dev/mapper/…`. */
  readonly path: string;
  /** Why the group should be left alone: it is shared between machines, exported, or lacks a disk. Otherwise empty. */
  readonly trouble: string;
}

const columns = [
  ...['lv_name', 'lv_uuid', 'lv_size', 'segtype', 'lv_attr', 'pool_lv', 'data_percent', 'metadata_percent'],
  ...['lv_dm_path', 'vg_name', 'vg_uuid', 'vg_free', 'vg_extent_size'],
  ...['vg_shared', 'vg_clustered', 'vg_exported', 'vg_partial'],
] as const;

type Row = Readonly<Record<(typeof columns)[number], string>>;

/** Longest run of a command that only reads, milliseconds. */
const lookMs = 30_000;

/**
 * Settings that keep lvm2 from writing copies of its metadata to /etc/lvm and lines to syslog, since both may be
 * frozen. They also keep dmeventd from monitoring a volume that will soon be gone.
 */
const quiet = ['--config', 'backup{backup=0 archive=0} log{syslog=0} activation{monitoring=0}'];

/** Parses the output of `lvs --reportformat json --units b --nosuffix`. Throws SyntaxError if it is not JSON. */
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
    // The names of hidden volumes are in brackets.
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

/** The kernel's UUID of a whole volume: `LVM-`, the group's, the volume's. Undefined for a part of a volume. */
export function volumeUuid(dmUuid: string | undefined): string | undefined {
  return dmUuid !== undefined && /^LVM-[A-Za-z0-9]{64}$/.test(dmUuid) ? dmUuid : undefined;
}

export function dmUuidOf({ uuid, groupUuid }: Pick<Volume, 'uuid' | 'groupUuid'>): string {
  return `LVM-${groupUuid}${uuid}`;
}

/** Lists all volumes, hidden ones too. Throws SNAPSHOT_FAILED. */
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

/** Runs a command of lvm2. Throws SNAPSHOT_FAILED if lvm2 is not installed. */
export async function lvm(
  args: readonly string[],
  options: { readonly killAfterMs?: number } = {},
): Promise<ProgramResult> {
  return runProgram(installed('lvm'), [...args, ...quiet], options);
}

/** Returns the status line of device-mapper for a device. Empty if there is no such device. */
export async function dmStatus(dmUuid: string): Promise<string> {
  // Without a flush the command only reads, and does not wait for writes.
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

/** Describes a failed command by the last lines of its output, since the reason comes last. */
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
