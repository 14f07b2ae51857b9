/** The output of `basicinfo` and `completeinfo`. */
import { formatBytes } from '../../base/bytes.ts';
import { formatDuration } from '../../base/duration.ts';
import type { BasicInfoDocument, CompleteInfoDocument } from '../../daemon/documents.ts';
import { renderList, renderTable } from './table.ts';

export function renderBasicInfo(info: BasicInfoDocument): string {
  return renderList(basicEntries(info));
}

export function renderCompleteInfo(info: CompleteInfoDocument): string {
  const entries: [string, string][] = [
    ...basicEntries(info),
    ['os_name', info.os_name],
    ['arch', info.arch],
    ['cpus', String(info.cpus)],
    ['memory', formatBytes(info.memory)],
    ['dattod_uptime', formatDuration(info.dattod_uptime_seconds * 1000)],
  ];
  const devices = renderTable(
    [
      { title: 'uuid' },
      { title: 'real_path' },
      { title: 'device_size', align: 'right' },
      { title: 'block_size', align: 'right' },
      { title: 'file_system' },
      { title: 'used_space', align: 'right' },
      { title: 'mount_location' },
    ],
    info.block_devices.map((device) => [
      device.uuid,
      device.real_path,
      formatBytes(device.device_size),
      String(device.block_size),
      device.file_system,
      device.mount_location === '' ? '-' : formatBytes(device.used_space),
      device.mount_location === '' ? '-' : device.mount_location,
    ]),
  );
  return `${renderList(entries)}\n${devices}`;
}

function basicEntries(info: BasicInfoDocument): [string, string][] {
  const { description, id, release } = info.lsb_release;
  return [
    ['agent_version', info.agent_version],
    ['hostname', info.hostname],
    ['kernel', info.kernel],
    ['lsb_release', description === '' ? `${id} ${release}`.trim() : description],
  ];
}
