/** `mount POINT DIR`: mounts a recovery point. `mount`: lists the mounts. */
import type { MountDocument } from '../../api/vault/output/recovery.ts';
import { Command } from 'commander';
import { AgentError } from '../../base/errors.ts';
import type { MountStatus } from '../../restore/mount/mount.ts';
import type { MountRecord } from '../../restore/mount/mount-record.ts';
import type { Point } from '../../vault/points/point.ts';
import type { Context, Run } from '../context.ts';
import { localTime } from '../render/local-time.ts';
import { printable, renderTable } from '../render/table.ts';
import { namedImage } from '../vault/image.ts';
import {
  type VaultValues,
  addDeviceOption,
  addRunDirectory,
  addVaultOptions,
  pointArgument,
  toCount,
  toPath,
} from '../vault/options.ts';
import { withVault } from '../vault/session.ts';

interface Values extends VaultValues {
  readonly device?: string;
  readonly partition?: number;
  readonly over?: true;
  readonly runDir: string;
}

export function mount(run: Run): Command {
  const command = new Command('mount')
    .description(
      'Mounts a filesystem of a recovery point on a directory, read-only and without copying it. ' +
        'Without arguments: lists the mounts.',
    )
    .argument('[point]', pointArgument[1])
    .argument('[directory]', 'mount point; created if it is missing');
  addDeviceOption(command)
    .option('--partition <number>', 'partition of a whole disk', toCount('--partition'))
    .option('--over', 'allow a mount point, a place where a device was mounted, or the vault itself');
  return addRunDirectory(addVaultOptions(command)).action(run(mountPoint));
}

async function mountPoint(context: Context, self: Command): Promise<number> {
  const [name, directory] = self.args;
  const { runDir: runDirectory, stateDir: stateDirectory, device, partition, over } = self.opts<Values>();
  if (name === undefined) return showMounts(context, runDirectory);
  if (directory === undefined)
    throw new AgentError('BAD_USAGE', `The directory to mount ${name} on is missing`, {
      hint: 'run dattocli mount POINT DIR',
    });
  needRoot('mount');
  const { clearMounts, mountImage } = await import('../vault/restore-library.ts');
  const record = await withVault(context, self, async (session) => {
    await clearMounts(runDirectory);
    const image = await namedImage(session, name, device);
    return mountImage({
      image: image.spec,
      subject: { point: image.point.id, device: image.device.path },
      sectorSize: image.device.sector_size,
      partition,
      directory: toPath(directory),
      runDirectory,
      stateDirectory,
      over: over === true,
      knownPlaces: await ownPlaces(image.point),
      signal: session.signal,
    });
  });
  const document = mountDocument(record, 'mounted');
  context.print(
    document,
    () =>
      `${printable(record.device)} of ${record.point} is mounted on ${printable(record.directory ?? '')}, read-only\n`,
  );
  return 0;
}

/** Returns where devices were mounted when the point was made, if it was made on this machine. */
async function ownPlaces({ machine }: Point): Promise<string[]> {
  const { thisProcess } = await import('../vault/library.ts');
  const { layoutPlaces } = await import('../vault/restore-library.ts');
  const { machine: here } = await thisProcess();
  return machine.id === here ? layoutPlaces(machine.layout) : [];
}

async function showMounts(context: Context, runDirectory: string): Promise<number> {
  const { listMounts } = await import('../vault/restore-library.ts');
  const mounts = (await listMounts(runDirectory))
    .filter(({ purpose }) => purpose === 'mount')
    .map((each) => mountDocument(each, each.state));
  context.print(mounts, () => (mounts.length === 0 ? 'nothing is mounted\n' : renderMounts(mounts)));
  return 0;
}

export function needRoot(what: string): void {
  if (process.getuid?.() !== 0)
    throw new AgentError('NO_PERMISSION', `Root permission is needed to ${what}`, {
      hint: 'run dattocli with sudo',
    });
}

export function mountDocument(record: MountRecord, state: MountStatus['state']): MountDocument {
  const { id, directory, point, device, partition, filesystem, method, created } = record;
  return {
    ...{ id, point, device, created, state },
    directory: directory ?? null,
    partition: partition ?? null,
    filesystem: filesystem ?? null,
    method: method ?? null,
  };
}

function renderMounts(mounts: readonly MountDocument[]): string {
  return renderTable(
    [
      { title: 'directory' },
      { title: 'point' },
      { title: 'device' },
      { title: 'filesystem' },
      { title: 'by' },
      { title: 'since' },
      { title: 'state' },
    ],
    mounts.map(({ id, directory, point, device, partition, filesystem, method, created, state }) => [
      directory ?? id,
      point.slice(0, 8),
      partition === null ? device : `${device}, partition ${partition}`,
      filesystem ?? '-',
      method ?? '-',
      localTime(created),
      state,
    ]),
  );
}
