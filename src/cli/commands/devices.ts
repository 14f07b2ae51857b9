/** `devices`: lists the block devices and how each can be backed up. */
import { Command } from 'commander';
import { formatBytes } from '../../base/bytes.ts';
import type { DeviceDocument } from '../../api/devices.ts';
import type { Run } from '../context.ts';
import { renderTable } from '../render/table.ts';

export function devices(run: Run): Command {
  return new Command('devices')
    .description('Lists the block devices of this machine, and how each can be backed up, or why not.')
    .action(
      run(async ({ client, print }) => {
        const found = await client.get<DeviceDocument[]>('/v1/devices');
        print(found, () => renderDeviceList(found));
        return 0;
      }),
    );
}

export function renderDeviceList(devices: readonly DeviceDocument[]): string {
  return renderTable(
    [
      { title: 'device' },
      { title: 'size', align: 'right' },
      { title: 'used', align: 'right' },
      { title: 'filesystem' },
      { title: 'uuid' },
      { title: 'label' },
      { title: 'mounted on' },
      { title: 'backup' },
    ],
    devices.map((device) => [
      device.path,
      formatBytes(device.size),
      device.used === null ? '-' : formatBytes(device.used),
      device.file_system ?? '-',
      device.uuid ?? '-',
      device.label ?? '-',
      device.mounts.map(({ path }) => path).join(' ') || '-',
      device.backup.possible ? device.backup.how : `no: ${device.backup.how}`,
    ]),
  );
}
