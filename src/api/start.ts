/** The body of `POST /v1/jobs`. */
import * as Type from 'typebox';
import { jobOptions } from './job-options.ts';
import { jobKind } from './job-status.ts';
import { closed, shortText } from './schema.ts';

export const startDocument = closed({
  kind: jobKind('the kind of job'),
  devices: Type.Array(
    closed({
      device: shortText('UUID, path, mount point, label or partition UUID of a block device'),
      target: shortText('URI of the target, or `vault:NAME`'),
    }),
    { maxItems: 256, description: 'the devices, each with its target' },
  ),
  options: Type.Optional(
    closed(jobOptions.properties, { description: 'missing ones come from the configuration' }),
  ),
});
export type StartDocument = Type.Static<typeof startDocument>;
