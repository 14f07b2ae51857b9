/** The parts of the daemon that the handlers of the routes use. */
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import type { FastifyBaseLogger, FastifyInstance } from 'fastify';
import type { ChainDocument } from '../../api/tracking.ts';
import type { DaemonDependencies } from '../daemon-dependencies.ts';
import type { EventStream } from '../event-stream.ts';
import type { JobTable } from '../jobs.ts';
import type { Tracking } from '../tracking.ts';

export interface RouteContext {
  readonly jobs: JobTable;
  readonly listDevices: DaemonDependencies['listDevices'];
  readonly tracking: Tracking;
  readonly chains: () => Promise<ChainDocument[]>;
  /** Seconds since the daemon started. */
  readonly uptime: () => number;
  /** The open streams. The daemon ends them at shutdown. */
  readonly streams: Set<EventStream>;
}

/** The server, with the types of requests and answers from the schemas of each route. */
export type Api = FastifyInstance<
  Server,
  IncomingMessage,
  ServerResponse,
  FastifyBaseLogger,
  TypeBoxTypeProvider
>;
