/** `tracking`: shows the changed block tracking of each device. */
import { Command } from 'commander';
import { formatBytes } from '../../base/bytes.ts';
import type { DeviceTrackingDocument, TrackingDocument } from '../../api/tracking.ts';
import type { Run } from '../context.ts';
import { localTime } from '../render/local-time.ts';
import { printable, renderTable } from '../render/table.ts';
import { stopTracking } from './tracking/stop.ts';

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
    .addCommand(stopTracking(run));
}

export function renderTracking({ trackers, continuity, devices }: TrackingDocument): string {
  const machine = trackers.map(
    ({ kind, supported, why, help }) =>
      `${kind}: ${supported ? 'yes' : 'no'}, ${printable(why)}${help === null ? '' : ` (${printable(help)})`}\n`,
  );
  const { armed, why, help } = continuity;
  const over = `over a reboot: ${armed ? 'yes' : 'no'}, ${printable(why)}${help === null ? '' : ` (${printable(help)})`}\n`;
  return `${machine.join('')}${over}\n${renderDevices(devices)}`;
}

function renderDevices(devices: readonly DeviceTrackingDocument[]): string {
  const bytes = (value: number | null) => (value === null ? '-' : formatBytes(value));
  return renderTable(
    [
      { title: 'device' },
      { title: 'tracked by' },
      { title: 'since' },
      { title: 'epoch' },
      { title: 'unit', align: 'right' },
      { title: 'dirty', align: 'right' },
      { title: 'memory', align: 'right' },
      { title: 'without dattod' },
      { title: 'remarks' },
    ],
    devices.map((device) => [
      device.device,
      device.tracker ?? 'nothing',
      device.since === null ? '-' : localTime(device.since),
      device.epoch?.slice(0, 8) ?? '-',
      bytes(device.unit),
      bytes(device.dirty_bytes),
      bytes(device.memory),
      device.pinned === null ? '-' : device.pinned ? 'continues' : 'ends',
      [device.why, device.help, device.reboot].filter((text) => text !== null).join('; '),
    ]),
  );
}
