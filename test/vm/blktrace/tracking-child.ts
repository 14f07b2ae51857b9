/**
 * A process that tracks a device by blktrace until it is killed: `node tracking-child.ts RUN_DIR DEVICE`.
 * Prints `tracking`, then answers lines on its standard input. For `take` it prints the number of marked
 * blocks, for `track` the doubt, and for each the reason if it fails.
 */
import { createInterface } from 'node:readline';
import { BlktraceTracker } from '../../../src/tracking/blktrace/blktrace-tracker.ts';
import { describeDevice } from '../guest.ts';

const [runDirectory = '', path = ''] = process.argv.slice(2);
const tracker = new BlktraceTracker({ runDirectory, relayBytes: 8192 });
const device = describeDevice(path);
await tracker.track(device);
console.log('tracking');
createInterface({ input: process.stdin }).on('line', (line) => {
  const work =
    line === 'track'
      ? tracker.track(device).then(({ doubt }) => doubt ?? 'no doubt')
      : tracker.take(device).then(({ dirty }) => `${dirty.count()} blocks`);
  void work.catch(String).then((answer) => console.log(answer));
});
