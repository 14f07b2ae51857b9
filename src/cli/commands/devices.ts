/** `devices`: what there is to back up, and how. */
import { Command } from 'commander';
import type { DeviceDocument } from '../../daemon/documents.ts';
import type { Run } from '../context.ts';
import { renderDeviceList } from '../render/devices.ts';

export function devices(run: Run): Command {
  return new Command('devices')
    .description('Lists the block devices of this machine and whether and how each can be backed up.')
    .action(
      run(async ({ client, print }) => {
        const found = await client.get<DeviceDocument[]>('/v1/devices');
        print(found, () => renderDeviceList(found));
        return 0;
      }),
    );
}
