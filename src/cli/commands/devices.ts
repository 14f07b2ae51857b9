/** `devices`: lists the block devices and how each can be backed up. */
import { Command } from 'commander';
import type { DeviceDocument } from '../../daemon/documents.ts';
import type { Run } from '../context.ts';
import { renderDeviceList } from '../render/devices.ts';

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
