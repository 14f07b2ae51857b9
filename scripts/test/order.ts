/**
 * The order of the integration tests. The files that take longest come first, so that none of them runs at the end
 * while the other processor is idle. Files that start a Ceph are not next to each other. ./run_tests prints the slowest
 * files. An order that is out of date costs only time.
 */
import { basename } from 'node:path';

const longest: readonly string[] = [
  'vm-tracking',
  'convergence',
  'incremental-history',
  'campaign',
  'vault-append-only',
  'incremental-doubt',
  'tracking-rollback',
  'tracking-upgrade',
  'restore-mount',
  'vault-s3-backup',
  'backup-cut',
  'backup-instant',
  'quickstart',
  'backup-bad-input',
  'backup-servers',
  'vault-store-s3',
  'backup-killed',
  'reboot-resume',
  'vault-killed',
  'vault-model',
];

/** Returns the files that `longest` names, in its order, then the others by name. */
export function longestFirst(files: readonly string[]): string[] {
  const place = (file: string): number => {
    const index = longest.indexOf(basename(file, '.test.ts'));
    return index === -1 ? longest.length : index;
  };
  return files.toSorted((a, b) => place(a) - place(b) || (a < b ? -1 : 1));
}
