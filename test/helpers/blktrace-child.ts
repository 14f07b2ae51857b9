/**
 * A process that tracks a device by blktrace until it is killed: `node blktrace-child.ts RUN_DIR DEVICE`. Says
 * `tracking`, and answers each line on its standard input by a take: the marked blocks, or why there are none.
 */
import { createInterface } from 'node:readline';
import { BlktraceTracker } from '../../src/tracking/blktrace/blktrace-tracker.ts';
import { describeDevice } from '../vm/guest.ts';

const [runDirectory = '', path = ''] = process.argv.slice(2);
const tracker = new BlktraceTracker({ runDirectory, relayBytes: 128 * 1024 });
const device = describeDevice(path);
await tracker.track(device);
console.log('tracking');
createInterface({ input: process.stdin }).on('line', () => {
  void tracker.take(device).then(
    ({ dirty }) => console.log(`${dirty.count()} blocks`),
    (thrown: unknown) => console.log(String(thrown)),
  );
});
