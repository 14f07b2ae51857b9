/** The output of `tracking`. */
import { formatBytes } from '../../base/bytes.ts';
import type { DeviceTrackingDocument, TrackingDocument } from '../../daemon/documents.ts';
import { localTime } from './job.ts';
import { printable, renderTable } from './table.ts';

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
