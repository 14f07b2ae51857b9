/**
 * Proves that the image after each incremental is the device at one instant, under constant writes to the
 * filesystem. This holds whatever happened to the jobs before: cancelled, or the daemon killed by SIGKILL at
 * a random moment. Tracking outlives the daemon, so all of them stay incrementals. For longer runs see
 * test/campaign-history.
 *
 * Needs a kernel on which eBPF tracking works; skipped elsewhere.
 */
import { test } from 'node:test';
import { trackingSupport } from '../../src/tracking/ebpf/support.ts';
import { type HistoryOptions, runHistory } from '../helpers/history.ts';

const support = await trackingSupport();
const skip = support.supported ? false : support.why;

/** These seeds include each kind of interruption on ext4, and each kind of kill during a job on XFS. */
const histories: readonly HistoryOptions[] = [
  { type: 'ext4', seed: 1945, incrementals: 8 },
  { type: 'xfs', seed: 2776, incrementals: 4 },
];

for (const history of histories)
  test(
    `${history.type}: a full and ${history.incrementals} incrementals under load, with jobs cancelled and daemons killed`,
    { skip },
    (t) => runHistory(t, history),
  );
