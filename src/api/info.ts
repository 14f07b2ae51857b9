/** The machine and the daemon: `GET /v1/info/basic`, `GET /v1/info/complete`, `GET /v1/health`. */
import * as Type from 'typebox';
import { choice, count, named, text, wholeNumber } from './schema.ts';

const lsbRelease = Type.Object(
  {
    id: text('`debian`'),
    description: text('`Debian GNU/Linux 12 (bookworm)`'),
    release: text('`12`'),
    codename: text('`bookworm`'),
  },
  { description: 'the distribution, from os-release(5)' },
);

const basic = {
  agent_version: text('version of dattod'),
  hostname: text('name of the host'),
  kernel: text('release of the kernel'),
  lsb_release: lsbRelease,
};

/** A block device as the predecessor's `completeinfo` described it. A missing value is an empty text or 0. */
const blockDeviceDocument = Type.Object({
  uuid: text('UUID of the filesystem'),
  real_path: text('path of the device'),
  device_size: count('bytes'),
  block_size: count('bytes per block of the filesystem'),
  file_system: text('type of the filesystem'),
  mount_location: text('the first mount point'),
  used_space: count('bytes of used blocks'),
});

export const basicInfoDocument = named('BasicInfo', basic);

export const completeInfoDocument = named('CompleteInfo', {
  ...basic,
  os_name: text('name of the distribution, with its version'),
  arch: text('as `uname -m` prints it'),
  cpus: count('processors'),
  memory: count('bytes'),
  dattod_uptime_seconds: count('seconds since the daemon started'),
  block_devices: Type.Array(blockDeviceDocument, { description: 'the devices with a filesystem UUID' }),
});

export const healthDocument = named('Health', {
  status: choice(['ok'], 'the daemon works'),
  version: text('version of dattod'),
  pid: wholeNumber(1, Number.MAX_SAFE_INTEGER, 'process ID of the daemon'),
  uptime_seconds: count('seconds since the daemon started'),
  running_jobs: count('jobs that run now'),
});

export type LsbRelease = Type.Static<typeof lsbRelease>;
export type BasicInfoDocument = Type.Static<typeof basicInfoDocument>;
export type BlockDeviceDocument = Type.Static<typeof blockDeviceDocument>;
export type CompleteInfoDocument = Type.Static<typeof completeInfoDocument>;
export type HealthDocument = Type.Static<typeof healthDocument>;
