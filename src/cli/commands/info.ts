/** `basicinfo` and `completeinfo`: show facts about the machine. */
import { Command } from 'commander';
import type { BasicInfoDocument, CompleteInfoDocument } from '../../daemon/documents.ts';
import type { Run } from '../context.ts';
import { renderBasicInfo, renderCompleteInfo } from '../render/info.ts';

export function basicInfo(run: Run): Command {
  return new Command('basicinfo').description('Shows agent, host and distribution.').action(
    run(async ({ client, print }) => {
      const info = await client.get<BasicInfoDocument>('/v1/info/basic');
      print(info, () => renderBasicInfo(info));
      return 0;
    }),
  );
}

export function completeInfo(run: Run): Command {
  return new Command('completeinfo')
    .description('Shows agent, host, distribution, processor, memory, and the devices with a filesystem.')
    .action(
      run(async ({ client, print }) => {
        const info = await client.get<CompleteInfoDocument>('/v1/info/complete');
        print(info, () => renderCompleteInfo(info));
        return 0;
      }),
    );
}
