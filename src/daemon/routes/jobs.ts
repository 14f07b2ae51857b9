/** `/v1/jobs`: starting, listing, following and changing jobs. */
import * as Type from 'typebox';
import type { FastifyReply } from 'fastify';
import { errorDocument } from '../../api/error.ts';
import { jobStatus, type JobStatus } from '../../api/job-status.ts';
import { ref } from '../../api/schema.ts';
import { startDocument } from '../../api/start.ts';
import { EventStream, isFinal } from '../event-stream.ts';
import type { JobTable } from '../jobs.ts';
import type { Api, RouteContext } from './context.ts';

const oneJob = Type.Object({
  uuid: Type.String({
    pattern: '^[0-9a-fA-F-]{4,36}$',
    title: 'the UUID of a job or its beginning, at least 4 characters',
  }),
});

const status = { 200: ref(jobStatus), default: ref(errorDocument) };

/** Server-sent events, whose data is the status of a job. */
const statusEvents = {
  200: {
    description: 'events named `status`, whose data is the JSON of a JobStatus',
    content: { 'text/event-stream': { schema: Type.String() } },
  },
  default: ref(errorDocument),
};

export function jobRoutes(api: Api, { jobs, streams }: RouteContext): void {
  api.get(
    '/v1/jobs',
    {
      schema: {
        summary: 'jobs that are being prepared, then those of the history, the newest first',
        querystring: Type.Object(
          {
            limit: Type.Optional(
              Type.String({
                pattern: '^[1-9][0-9]{0,5}$',
                title: 'a whole number from 1 to 999999',
                description: 'how many jobs to return at most',
              }),
            ),
          },
          { additionalProperties: false },
        ),
        response: { 200: Type.Array(ref(jobStatus)), default: ref(errorDocument) },
      },
    },
    ({ query: { limit } }) => jobs.list(limit === undefined ? undefined : Number(limit)),
  );

  api.post(
    '/v1/jobs',
    {
      schema: {
        summary: 'checks everything, starts a backup or a verification and answers with its status',
        body: startDocument,
        response: { 201: ref(jobStatus), default: ref(errorDocument) },
      },
    },
    async ({ body, raw: { socket } }, reply) => {
      const leaving = new AbortController();
      const leave = (): void => leaving.abort();
      socket.once('close', leave);
      if (socket.destroyed) leave();
      reply.status(201);
      try {
        return await jobs.start(body, leaving.signal);
      } finally {
        socket.off('close', leave);
      }
    },
  );

  api.get(
    '/v1/jobs/:uuid',
    { schema: { summary: 'the status of one job', params: oneJob, response: status } },
    ({ params: { uuid } }) => jobs.get(uuid),
  );

  const stop = (uuid: string): Promise<JobStatus> => jobs.stop(uuid, 'stopped by an operator');
  api.delete(
    '/v1/jobs/:uuid',
    { schema: { summary: 'the same as stop', params: oneJob, response: status } },
    ({ params: { uuid } }) => stop(uuid),
  );

  api.post(
    '/v1/jobs/:uuid/stop',
    {
      schema: {
        summary: 'cancels a job, also during its checks, and answers with its final status',
        params: oneJob,
        response: status,
      },
    },
    ({ params: { uuid } }) => stop(uuid),
  );

  api.post(
    '/v1/jobs/:uuid/pause',
    { schema: { summary: 'pauses a running job', params: oneJob, response: status } },
    ({ params: { uuid } }) => jobs.pause(uuid),
  );

  api.post(
    '/v1/jobs/:uuid/resume',
    { schema: { summary: 'resumes a paused job', params: oneJob, response: status } },
    ({ params: { uuid } }) => jobs.resume(uuid),
  );

  api.get(
    '/v1/jobs/:uuid/events',
    {
      schema: {
        summary: 'the status of one job as events, now and at every change, until it has ended',
        params: oneJob,
        response: statusEvents,
      },
    },
    (request, reply) => {
      const { uuid } = jobs.get(request.params.uuid);
      const stream = openStream(streams, reply, jobs, (each) => {
        if (each.uuid !== uuid) return;
        stream.send(each);
        if (isFinal(each)) stream.end();
      });
      const now = jobs.get(uuid);
      stream.send(now);
      if (isFinal(now)) stream.end();
    },
  );

  api.get(
    '/v1/events',
    {
      schema: {
        summary: 'the statuses of all jobs as events, for as long as the connection lasts',
        response: statusEvents,
      },
    },
    (_request, reply) => {
      const stream = openStream(streams, reply, jobs, (each) => stream.send(each));
      for (const each of jobs.running()) stream.send(each);
    },
  );
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
