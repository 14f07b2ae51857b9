/** The table of `chains`. */
import { formatBytes } from '../../base/bytes.ts';
import type { ChainDocument } from '../../daemon/documents.ts';
import { localTime } from './job.ts';
import { renderTable } from './table.ts';

export function renderChains(chains: readonly ChainDocument[]): string {
  return renderTable(
    [
      { title: 'device' },
      { title: 'target' },
      { title: 'state' },
      { title: 'last backup' },
      { title: 'tracked by' },
      { title: 'pending', align: 'right' },
      { title: 'job' },
    ],
    chains.map((chain) => [
      chain.device,
      chain.target,
      stateText(chain),
      chain.completed_at === null ? '-' : localTime(chain.completed_at),
      chain.tracker,
      formatBytes(chain.pending_bytes),
      chain.job ?? '-',
    ]),
  );
}

function stateText({ complete, torn }: ChainDocument): string {
  if (!complete) return 'incomplete: the next backup must be a full';
  return torn ? 'torn: the last job that wrote to it did not succeed' : 'complete';
}
