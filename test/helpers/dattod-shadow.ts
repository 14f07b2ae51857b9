/** The real dattod, but with the tracker of shadow-tracker.ts over the directory in DATTO_SHADOW. */
import { dattodWith } from './dattod-with.ts';
import { shadowCandidate } from './shadow-tracker.ts';

await dattodWith(() => [shadowCandidate(process.env['DATTO_SHADOW'] ?? '/nonexistent')]);
