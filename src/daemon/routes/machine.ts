/** The machine and the daemon: `/v1/devices`, `/v1/info` and `/v1/health`. */
import * as Type from 'typebox';
import { deviceDocument } from '../../api/devices.ts';
import { errorDocument } from '../../api/error.ts';
import { basicInfoDocument, completeInfoDocument, healthDocument } from '../../api/info.ts';
import { ref } from '../../api/schema.ts';
import { agentVersion } from '../../base/version.ts';
import { basicInfo, completeInfo, describeDevice } from '../machine-info.ts';
import type { Api, RouteContext } from './context.ts';

export function machineRoutes(api: Api, { jobs, listDevices, uptime }: RouteContext): void {
  api.get(
    '/v1/devices',
    {
      schema: {
        summary: 'the block devices of this machine and how each would be backed up',
        response: { 200: Type.Array(ref(deviceDocument)), default: ref(errorDocument) },
      },
    },
    async () => (await listDevices()).map(describeDevice),
  );

  api.get(
    '/v1/info/basic',
    {
      schema: {
        summary: 'agent, host and distribution',
        response: { 200: ref(basicInfoDocument), default: ref(errorDocument) },
      },
    },
    () => basicInfo(),
  );

  api.get(
    '/v1/info/complete',
    {
      schema: {
        summary: 'the same with processor, memory, uptime and block devices',
        response: { 200: ref(completeInfoDocument), default: ref(errorDocument) },
      },
    },
    async () => completeInfo(await listDevices(), Math.floor(uptime())),
  );

  api.get(
    '/v1/health',
    {
      schema: {
        summary: 'answers if the daemon works',
        response: { 200: ref(healthDocument), default: ref(errorDocument) },
      },
    },
    () => ({
      status: 'ok' as const,
      version: agentVersion,
      pid: process.pid,
      uptime_seconds: Math.floor(uptime()),
      running_jobs: jobs.runningCount,
    }),
  );
}
