/** `tracking`: how the writes to each device are tracked, and `tracking stop`: the end of it. */
import { Command } from 'commander';
import type { TrackingDocument, TrackingStoppedDocument } from '../../daemon/documents.ts';
import type { Run } from '../context.ts';
import { renderTracking } from '../render/tracking.ts';

export function tracking(run: Run): Command {
  return new Command('tracking')
    .description(
      'Shows how the writes to each device are tracked, so that an incremental knows what to send; or why ' +
        'they are not, and what would help.',
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
      'Ends the tracking of a device, or of all, and removes what it has in the kernel. The next incremental ' +
        'becomes a differential.',
    )
    .argument('[device]', 'filesystem UUID, path, mount point, label or partition UUID; all where left out')
    .action(
      run(async ({ client, print }, { args: [device] }) => {
        const body = device === undefined ? {} : { device };
        const answer = await client.post<TrackingStoppedDocument>('/v1/tracking/stop', body);
        print(answer, () =>
          answer.stopped.length === 0
            ? 'nothing was tracked\n'
            : answer.stopped.map((path) => `${path} is not tracked any more\n`).join(''),
        );
        return 0;
      }),
    );
}
