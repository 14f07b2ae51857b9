/**
 * The real dattod, but its jobs may keep no more than DATTO_ROOM bytes in memory until the thaw. They keep
 * the rest in files only if DATTO_FILES is set.
 */
import { prepareJob } from '../../src/backup/prepare/prepare-job.ts';
import { parseBytes } from '../../src/base/bytes.ts';
import { trackerCandidates } from '../../src/tracking/candidates.ts';
import { dattodWith } from './dattod-with.ts';

const spool = {
  memory: parseBytes(process.env['DATTO_ROOM'] ?? '', 'DATTO_ROOM'),
  files: process.env['DATTO_FILES'] !== undefined,
};

await dattodWith(trackerCandidates, {
  prepareJob: (request, environment) => prepareJob(request, { ...environment, spool }),
});
