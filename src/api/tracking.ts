/** Tracking and chains: `GET /v1/tracking`, `POST /v1/tracking/stop`, `GET /v1/chains`. */
import * as Type from 'typebox';
import { closed, count, flag, named, nullable, ref, shortText, text, time } from './schema.ts';

const continuityDocument = Type.Object(
  {
    armed: flag('the next clean shutdown is recorded, and the record is used at the boot after it'),
    why: text('the reason'),
    help: nullable(text('the step that would help; null if nothing has to be done')),
  },
  { description: 'whether tracking would continue over the next clean reboot' },
);

export const deviceTrackingDocument = named('DeviceTracking', {
  device: text('path of the device'),
  uuid: nullable(text('UUID of its filesystem')),
  tracker: nullable(
    text('`ebpf` or `blktrace`; null if nothing tracks it, and then all fields up to `pinned` are null'),
  ),
  since: nullable(time('start of the epoch')),
  epoch: nullable(text('ID of the epoch')),
  unit: nullable(count('bytes per bit of the map')),
  dirty_bytes: nullable(count('bytes marked now')),
  memory: nullable(count('bytes of memory that the map takes')),
  pinned: nullable(flag('tracking continues while the daemon does not run')),
  reboot: nullable(text('whether tracking continued over the last reboot, or why not')),
  why: nullable(text('why it is not tracked, or why writes may have been missed; null if all is well')),
  help: nullable(text('the remedy')),
});

export const trackingDocument = named('Tracking', {
  trackers: Type.Array(
    Type.Object({
      kind: text('`ebpf` or `blktrace`'),
      supported: flag('this machine supports it'),
      why: text('why, or why not'),
      help: nullable(text('the step that would help')),
    }),
    { description: 'the trackers of this agent, the best first' },
  ),
  continuity: continuityDocument,
  devices: Type.Array(ref(deviceTrackingDocument), { description: 'how each device is tracked' }),
});

/** The body of `POST /v1/tracking/stop`. Null stands for an empty body. */
export const stopTrackingDocument = nullable(
  closed({ device: Type.Optional(shortText('name of the device; missing: all devices')) }),
);

export const trackingStoppedDocument = named('TrackingStopped', {
  stopped: Type.Array(Type.String(), { description: 'the devices whose tracking was ended' }),
});

export const chainDocument = named('Chain', {
  device: text('path of the device'),
  uuid: nullable(text('UUID of its filesystem')),
  target: text('URI of the target'),
  complete: flag('a backup has been completed, so an incremental or a differential can build on it'),
  torn: flag('the target holds no image of one instant: a job that wrote to it did not succeed'),
  tracker: text(
    'the tracker at the last backup; if it is `none`, the next incremental becomes a differential',
  ),
  epoch: nullable(text('ID of the epoch')),
  job: nullable(text('UUID of the last completed job')),
  completed_at: nullable(time('when that job ended')),
  device_size: count('bytes'),
  pending_bytes: count(
    'bytes that the target does not hold as they were: free ones that were never sent, and known changes',
  ),
});

export type ContinuityDocument = Type.Static<typeof continuityDocument>;
export type DeviceTrackingDocument = Type.Static<typeof deviceTrackingDocument>;
export type TrackingDocument = Type.Static<typeof trackingDocument>;
export type TrackingStoppedDocument = Type.Static<typeof trackingStoppedDocument>;
export type ChainDocument = Type.Static<typeof chainDocument>;
