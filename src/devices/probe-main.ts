/** The process that reads devices (probe-process.ts). It answers each path with the result of probe-device.ts. */
import { exitNow } from '../linux/exit.ts';
import { probeDevice } from './probe-device.ts';
import type { ProbeAnswer, ProbeQuestion } from './probe-process.ts';

// A normal exit would wait for the reads that hang.
process.on('disconnect', () => exitNow(0));

const answer = (message: ProbeAnswer): void => void process.send?.(message);

process.on('message', ({ id, path }: ProbeQuestion) => {
  probeDevice(path).then(
    (probed) => answer({ id, probed }),
    (thrown: unknown) => answer({ id, error: String(thrown) }),
  );
});

answer({ ready: true });
