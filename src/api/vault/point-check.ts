/** The result of a verification of a recovery point: `checks/POINT/CHECK` (docs/formats/vault.md). */
import * as Type from 'typebox';
import { choice, text } from '../schema.ts';
import { type Stored, timestamp } from './stored.ts';

const coverage = Type.Number({
  minimum: 0,
  maximum: 1,
  description: 'share of the chunks that were checked',
});
const outcome = choice(['whole', 'damaged', 'unfinished'], 'result');

export const pointCheck = Type.Object({
  level: choice(
    ['reachable', 'read', 'filesystem'],
    '`reachable`: pages and chunks exist; `read`: chunks were opened; `filesystem`: its own checker ran',
  ),
  at: timestamp('when it ended'),
  coverage,
  outcome,
  devices: Type.Optional(
    Type.Array(Type.Object({ path: text('path of the device'), coverage, outcome }), {
      description: 'result for each device; earlier versions did not record it',
    }),
  ),
  problems: Type.Array(Type.Unknown(), { description: 'texts for the user' }),
  agent: text('version of the program'),
});
export type PointCheckDocument = Stored<typeof pointCheck>;
