/** A process that takes and never commits: it writes, takes, prints that, and waits to be killed. */
import { EbpfTracker } from '../../src/tracking/ebpf/tracker.ts';
import { describeDevice, sh } from './guest.ts';

const path = process.argv[2]!;
const tracker = await EbpfTracker.open();
const device = describeDevice(path);
await tracker.track(device);
sh(`dd if=/dev/urandom of=${path} bs=4k seek=100 count=3 oflag=direct conv=notrunc status=none`);
const { dirty } = await tracker.take(device);
const [extent] = dirty.extents();
console.log(`taken ${extent!.offset / 4096} to ${(extent!.offset + extent!.length) / 4096 - 1}`);
setInterval(() => undefined, 1000);
