/** `tracking`: shows the changed block tracking of each device. `tracking stop`: ends it. */
import { Command } from 'commander';
import type { TrackingDocument, TrackingStoppedDocument } from '../../daemon/documents.ts';
import type { Run } from '../context.ts';
import { renderTracking } from '../render/tracking.ts';

export function tracking(run: Run): Command {
  return new Command('tracking')
    .description(
      'Shows how the changed blocks of each device are tracked, so that an incremental knows what to send. If a ' +
        'device is not tracked, shows why and what would help.',
    )
    .action(
      run(async ({ client, print }) => {
        const found = await client.get<TrackingDocument>('/v1/tracking');
        print(found, () => renderTracking(found));
        return 0;
      }),
    )
    .addCommand(stop(run));
}

function stop(run: Run): Command {
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
