/** `chains`: lists the targets and the state of each. */
import { Command } from 'commander';
import type { ChainDocument } from '../../daemon/documents.ts';
import type { Run } from '../context.ts';
import { renderChains } from '../render/chains.ts';

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
