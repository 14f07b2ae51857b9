/** `basicinfo`: shows facts about the agent and its host. */
import { Command } from 'commander';
import type { BasicInfoDocument } from '../../api/info.ts';
import type { Run } from '../context.ts';
import { renderList } from '../render/table.ts';

export function basicInfo(run: Run): Command {
  return new Command('basicinfo').description('Shows agent, host and distribution.').action(
    run(async ({ client, print }) => {
      const info = await client.get<BasicInfoDocument>('/v1/info/basic');
      print(info, () => renderList(basicEntries(info)));
      return 0;
    }),
  );
}

/** Returns the facts that `completeinfo` shows, too. */
export function basicEntries(info: BasicInfoDocument): [string, string][] {
  const { description, id, release } = info.lsb_release;
  return [
    ['agent_version', info.agent_version],
    ['hostname', info.hostname],
    ['kernel', info.kernel],
    ['lsb_release', description === '' ? `${id} ${release}`.trim() : description],
  ];
}
