/** The real dattod, but with an eBPF tracker that has room for 16 writes in flight. */
import { trackerCandidates } from '../../src/tracking/candidates.ts';
import { EbpfTracker } from '../../src/tracking/ebpf/tracker.ts';
import { dattodWith } from './dattod-with.ts';

await dattodWith((places) =>
  trackerCandidates(places)
    .filter(({ kind }) => kind === 'ebpf')
    .map((candidate) => ({
      ...candidate,
      open: () => EbpfTracker.open({ pinDirectory: places.pinDirectory, inFlightEntries: 16 }),
    })),
);
