/** `completeinfo`: shows facts about the agent, its host, and the devices with a filesystem. */
import { Command } from 'commander';
import { formatBytes } from '../../base/bytes.ts';
import { formatDuration } from '../../base/duration.ts';
import type { CompleteInfoDocument } from '../../api/info.ts';
import type { Run } from '../context.ts';
import { renderList, renderTable } from '../render/table.ts';
import { basicEntries } from './basicinfo.ts';

export function completeInfo(run: Run): Command {
  return new Command('completeinfo')
    .description('Shows agent, host, distribution, processor, memory, and the devices with a filesystem.')
    .action(
      run(async ({ client, print }) => {
        const info = await client.get<CompleteInfoDocument>('/v1/info/complete');
        print(info, () => renderCompleteInfo(info));
        return 0;
      }),
    );
}

function renderCompleteInfo(info: CompleteInfoDocument): string {
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
