/**
 * Runs a backup in a separate process, for a test to kill: DEVICE TARGET STATE RUN RATE. Prints its state at
 * its end.
 */
import { silentLog } from '../../src/base/log.ts';
import { defaultJobOptions, type JobEnvironment } from '../../src/backup/job.ts';
import { randomUUID } from 'node:crypto';
import { prepareJob } from '../../src/backup/prepare/prepare-job.ts';
import { findDevice } from '../../src/devices/find.ts';
import { listDevices } from '../../src/devices/inventory.ts';

const [device = '', target = '', stateDirectory = '', runDirectory = '', rate = ''] = process.argv.slice(2);
const devices = await listDevices();
const environment: JobEnvironment = {
  log: silentLog(),
  holdWhileFrozen: [],
  stateDirectory,
  runDirectory,
};
const prepared = await prepareJob(
  {
    uuid: randomUUID(),
    kind: 'full',
    pairs: [{ device: await findDevice(devices, device), target }],
    devices,
    options: { ...defaultJobOptions, rate: Number(rate) },
  },
  environment,
);
console.log((await prepared.start().done).state);
