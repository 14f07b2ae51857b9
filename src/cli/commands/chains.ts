/** `chains`: lists the targets and the state of each. */
import { Command } from 'commander';
import { formatBytes } from '../../base/bytes.ts';
import type { ChainDocument } from '../../api/tracking.ts';
import type { Run } from '../context.ts';
import { localTime } from '../render/local-time.ts';
import { renderTable } from '../render/table.ts';

export function chains(run: Run): Command {
  return new Command('chains')
    .description('Lists the targets that devices were backed up to, with the state of each.')
    .action(
      run(async ({ client, print }) => {
        const found = await client.get<ChainDocument[]>('/v1/chains');
        print(found, () => (found.length === 0 ? 'no backups yet\n' : renderChains(found)));
        return 0;
      }),
    );
}

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
