/** `/v1/tracking` and `/v1/chains`. */
import * as Type from 'typebox';
import { errorDocument } from '../../api/error.ts';
import { ref } from '../../api/schema.ts';
import {
  chainDocument,
  stopTrackingDocument,
  trackingDocument,
  trackingStoppedDocument,
} from '../../api/tracking.ts';
import type { Api, RouteContext } from './context.ts';

export function trackingRoutes(api: Api, { tracking, chains }: RouteContext): void {
  api.get(
    '/v1/tracking',
    {
      schema: {
        summary: 'how the writes to each device are tracked, or why not',
        response: { 200: ref(trackingDocument), default: ref(errorDocument) },
      },
    },
    () => tracking.describe(),
  );

  api.post(
    '/v1/tracking/stop',
    {
      schema: {
        summary: 'ends the tracking of one device, or of all, with everything of it in the kernel',
        body: stopTrackingDocument,
        response: { 200: ref(trackingStoppedDocument), default: ref(errorDocument) },
      },
    },
    // Without a body, Fastify checks null and leaves the body undefined.
    ({ body }) => tracking.stop((body as typeof body | undefined)?.device),
  );

  api.get(
    '/v1/chains',
    {
      schema: {
        summary: 'the chains: each target that a device was backed up to, and its state',
        response: { 200: Type.Array(ref(chainDocument)), default: ref(errorDocument) },
      },
    },
    () => chains(),
  );
}
