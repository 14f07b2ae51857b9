/** `version`: shows the version of this command and of a running daemon. */
import { Command } from 'commander';
import { AgentError } from '../../base/errors.ts';
import { agentVersion } from '../../base/version.ts';
import type { HealthDocument } from '../../api/info.ts';
import type { Client } from '../client.ts';
import type { Run } from '../context.ts';

export function version(run: Run): Command {
  return new Command('version')
    .description('Shows the version of dattocli, and of dattod if it is running.')
    .action(
      run(async ({ client, print }) => {
        const daemon = await daemonVersion(client);
        print(
          { dattocli: agentVersion, dattod: daemon },
          () => `dattocli ${agentVersion}\ndattod ${daemon ?? 'is not running'}\n`,
        );
        return 0;
      }),
    );
}

async function daemonVersion(client: Client): Promise<string | null> {
  try {
    return (await client.get<HealthDocument>('/v1/health')).version;
  } catch (error) {
    if (error instanceof AgentError && ['DAEMON_UNREACHABLE', 'NO_PERMISSION'].includes(error.code))
      return null;
    throw error;
  }
}
