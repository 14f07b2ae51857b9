/** `tracking stop`: stops changed block tracking. */
import { Command } from 'commander';
import type { TrackingStoppedDocument } from '../../../api/tracking.ts';
import type { Run } from '../../context.ts';

export function stopTracking(run: Run): Command {
  return new Command('stop')
    .description(
      'Stops tracking a device, or all devices, and removes the tracker from the kernel. The next incremental ' +
        'becomes a differential.',
    )
    .argument('[device]', 'filesystem UUID, path, mount point, label or partition UUID; default: all devices')
    .action(
      run(async ({ client, print }, { args: [device] }) => {
        const body = device === undefined ? {} : { device };
        const answer = await client.post<TrackingStoppedDocument>('/v1/tracking/stop', body);
        print(answer, () =>
          answer.stopped.length === 0
            ? 'no device was tracked\n'
            : answer.stopped.map((path) => `${path} is no longer tracked\n`).join(''),
        );
        return 0;
      }),
    );
}
