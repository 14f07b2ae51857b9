/** The configuration file of dattod (docs/dattod.md): defaults for job options, vaults and the daemon. */
import * as Type from 'typebox';
import { jobOptions } from './job-options.ts';
import { absolutePath, closed, flag, wholeNumber } from './schema.ts';
import { namedVaults } from './vault-settings.ts';

export const configuration = closed({
  job_options: Type.Optional(
    closed(jobOptions.properties, { description: 'defaults for jobs whose requests do not set them' }),
  ),
  vaults: Type.Optional(namedVaults),
  history_limit: Type.Optional(wholeNumber(1, 100_000, 'how many jobs the history keeps (1000)')),
  reboot_continuity: Type.Optional(
    flag('whether tracking continues over a clean reboot, if that is safe (true)'),
  ),
  reboot_record: Type.Optional(
    absolutePath(
      'the place of the record of a shutdown: a file, or a prepared block device (`STATE/reboot-record`)',
    ),
  ),
});
export type Configuration = Type.Static<typeof configuration>;
