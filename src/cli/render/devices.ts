/** The table of `devices`. */
import { formatBytes } from '../../base/bytes.ts';
import type { DeviceDocument } from '../../daemon/documents.ts';
import { renderTable } from './table.ts';

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
