/** The routes of the API in one list. docs/api.md lists the same routes, and a test compares the two. */
import type { FastifyReply, FastifyRequest } from 'fastify';
import { agentVersion } from '../base/version.ts';
import type { Collaborators } from './collaborators.ts';
import type {
  ChainDocument,
  DeviceDocument,
  HealthDocument,
  JobStatus,
  StartDocument,
  TrackingDocument,
  TrackingStoppedDocument,
} from './documents.ts';
import { EventStream, isFinal } from './event-stream.ts';
import { basicInfo, completeInfo, deviceDocument } from './info.ts';
import { jobOptionsSchema } from './job-options.ts';
import type { JobTable } from './jobs.ts';
import type { Tracking } from './tracking.ts';

export interface RouteContext {
  readonly jobs: JobTable;
  readonly listDevices: Collaborators['listDevices'];
  readonly tracking: Tracking;
  readonly chains: () => Promise<ChainDocument[]>;
  /** Seconds since the daemon started. */
  readonly uptime: () => number;
  /** The open streams. The daemon ends them at shutdown. */
  readonly streams: Set<EventStream>;
}

export interface Route {
  readonly method: 'GET' | 'POST' | 'DELETE';
  readonly url: string;
  readonly summary: string;
  readonly schema?: Readonly<Record<string, unknown>>;
  /** HTTP status of a successful answer. Default: 200. */
  readonly status?: 201;
  readonly handler: (context: RouteContext, request: FastifyRequest, reply: FastifyReply) => unknown;
}

const text = { type: 'string', minLength: 1, maxLength: 4096 };

const startSchema = {
  type: 'object',
  required: ['kind', 'devices'],
  additionalProperties: false,
  properties: {
    kind: { type: 'string', enum: ['full', 'incremental', 'differential', 'verify'] },
    devices: {
      type: 'array',
      maxItems: 256,
      items: {
        type: 'object',
        required: ['device', 'target'],
        additionalProperties: false,
        properties: { device: text, target: text },
      },
    },
    options: jobOptionsSchema,
  },
};

const oneJob = {
  params: {
    type: 'object',
    required: ['uuid'],
    properties: { uuid: { type: 'string', pattern: '^[0-9a-fA-F-]{4,36}$' } },
  },
};

const uuidOf = (request: FastifyRequest) => (request.params as { uuid: string }).uuid;

export const routes: readonly Route[] = [
  {
    method: 'GET',
    url: '/v1/jobs',
    summary: 'jobs that are being prepared, then those of the history, the newest first',
    schema: {
      querystring: {
        type: 'object',
        additionalProperties: false,
        properties: { limit: { type: 'string', pattern: '^[1-9][0-9]{0,5}$' } },
      },
    },
    handler: ({ jobs }, request): JobStatus[] => {
      const { limit } = request.query as { limit?: string };
      return jobs.list(limit === undefined ? undefined : Number(limit));
    },
  },
  {
    method: 'POST',
    url: '/v1/jobs',
    summary: 'checks everything, starts a backup or a verification and answers with its status',
    schema: { body: startSchema },
    status: 201,
    handler: async ({ jobs }, request): Promise<JobStatus> => {
      const { socket } = request.raw;
      const leaving = new AbortController();
      const leave = (): void => leaving.abort();
      socket.once('close', leave);
      if (socket.destroyed) leave();
      try {
        return await jobs.start(request.body as StartDocument, leaving.signal);
      } finally {
        socket.off('close', leave);
      }
    },
  },
  {
    method: 'GET',
    url: '/v1/jobs/:uuid',
    summary: 'the status of one job',
    schema: oneJob,
    handler: ({ jobs }, request): JobStatus => jobs.get(uuidOf(request)),
  },
  {
    method: 'DELETE',
    url: '/v1/jobs/:uuid',
    summary: 'the same as stop',
    schema: oneJob,
    handler: stop,
  },
  {
    method: 'POST',
    url: '/v1/jobs/:uuid/stop',
    summary: 'cancels a job, also during its checks, and answers with its final status',
    schema: oneJob,
    handler: stop,
  },
  {
    method: 'POST',
    url: '/v1/jobs/:uuid/pause',
    summary: 'pauses a running job',
    schema: oneJob,
    handler: ({ jobs }, request): JobStatus => jobs.pause(uuidOf(request)),
  },
  {
    method: 'POST',
    url: '/v1/jobs/:uuid/resume',
    summary: 'resumes a paused job',
    schema: oneJob,
    handler: ({ jobs }, request): JobStatus => jobs.resume(uuidOf(request)),
  },
  {
    method: 'GET',
    url: '/v1/jobs/:uuid/events',
    summary: 'the status of one job as events, now and at every change, until it has ended',
    schema: oneJob,
    handler: ({ jobs, streams }, request, reply) => {
      const { uuid } = jobs.get(uuidOf(request));
      const stream = openStream(streams, reply, jobs, (status) => {
        if (status.uuid !== uuid) return;
        stream.send(status);
        if (isFinal(status)) stream.end();
      });
      const now = jobs.get(uuid);
      stream.send(now);
      if (isFinal(now)) stream.end();
    },
  },
  {
    method: 'GET',
    url: '/v1/events',
    summary: 'the statuses of all jobs as events, for as long as the connection lasts',
    handler: ({ jobs, streams }, _request, reply) => {
      const stream = openStream(streams, reply, jobs, (status) => stream.send(status));
      for (const status of jobs.running()) stream.send(status);
    },
  },
  {
    method: 'GET',
    url: '/v1/devices',
    summary: 'the block devices of this machine and how each would be backed up',
    handler: async ({ listDevices }): Promise<DeviceDocument[]> => (await listDevices()).map(deviceDocument),
  },
  {
    method: 'GET',
    url: '/v1/tracking',
    summary: 'how the writes to each device are tracked, or why not',
    handler: ({ tracking }): Promise<TrackingDocument> => tracking.describe(),
  },
  {
    method: 'POST',
    url: '/v1/tracking/stop',
    summary: 'ends the tracking of one device, or of all, with everything of it in the kernel',
    schema: {
      body: {
        type: ['object', 'null'],
        additionalProperties: false,
        properties: { device: text },
      },
    },
    handler: ({ tracking }, request): Promise<TrackingStoppedDocument> =>
      tracking.stop((request.body as { device?: string } | null)?.device),
  },
  {
    method: 'GET',
    url: '/v1/chains',
    summary: 'the chains: each target that a device was backed up to, and its state',
    handler: ({ chains }): Promise<ChainDocument[]> => chains(),
  },
  {
    method: 'GET',
    url: '/v1/info/basic',
    summary: 'agent, host and distribution',
    handler: () => basicInfo(),
  },
  {
    method: 'GET',
    url: '/v1/info/complete',
    summary: 'the same with processor, memory, uptime and block devices',
    handler: async ({ listDevices, uptime }) => completeInfo(await listDevices(), Math.floor(uptime())),
  },
  {
    method: 'GET',
    url: '/v1/health',
    summary: 'answers if the daemon works',
    handler: ({ jobs, uptime }): HealthDocument => ({
      status: 'ok',
      version: agentVersion,
      pid: process.pid,
      uptime_seconds: Math.floor(uptime()),
      running_jobs: jobs.runningCount,
    }),
  },
];

function stop({ jobs }: RouteContext, request: FastifyRequest): Promise<JobStatus> {
  return jobs.stop(uuidOf(request), 'stopped by an operator');
}

function openStream(
  streams: Set<EventStream>,
  reply: FastifyReply,
  jobs: JobTable,
  listener: (status: JobStatus) => void,
): EventStream {
  reply.hijack();
  const unsubscribe = jobs.subscribe(listener);
  const stream: EventStream = new EventStream(reply.raw, () => {
    unsubscribe();
    streams.delete(stream);
  });
  streams.add(stream);
  return stream;
}
