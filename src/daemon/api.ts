/**
 * The API: HTTP with JSON on a Unix socket that only root can open (mode 0600). docs/api.md documents it. Requests are
 * checked against the schemas of `src/api`. Each error is an `ErrorDocument` with a matching HTTP status.
 */
import swagger from '@fastify/swagger';
import { fastify, type FastifyError, type FastifyRequest } from 'fastify';
import type { JsonSchema } from '../api/allowed.ts';
import { deviceDocument } from '../api/devices.ts';
import { errorDocument } from '../api/error.ts';
import { basicInfoDocument, completeInfoDocument, healthDocument } from '../api/info.ts';
import { deviceStatus, jobStatus } from '../api/job-status.ts';
import { findProblem, problemHint, problemText } from '../api/problem.ts';
import {
  chainDocument,
  deviceTrackingDocument,
  trackingDocument,
  trackingStoppedDocument,
} from '../api/tracking.ts';
import { AgentError, errnoCode, toAgentError } from '../base/errors.ts';
import { listenOn } from '../base/listen.ts';
import type { Log } from '../base/log.ts';
import { agentVersion } from '../base/version.ts';
import { httpStatus } from './http-status.ts';
import type { Api, RouteContext } from './routes/context.ts';
import { jobRoutes } from './routes/jobs.ts';
import { machineRoutes } from './routes/machine.ts';
import { trackingRoutes } from './routes/tracking.ts';

/** The documents that answers refer to by name. */
export const documents = [
  ...[jobStatus, deviceStatus, errorDocument, deviceDocument],
  ...[trackingDocument, deviceTrackingDocument, trackingStoppedDocument, chainDocument],
  ...[basicInfoDocument, completeInfoDocument, healthDocument],
];

/** Builds the server with all routes. The server does not listen yet. */
export function createApi(context: RouteContext, log: Log): Api {
  const api: Api = fastify({
    logger: false,
    bodyLimit: 256 * 1024,
    // A request is taken as it is: nothing is converted, removed or filled in.
    ajv: { customOptions: { coerceTypes: false, removeAdditional: false, useDefaults: false } },
    forceCloseConnections: 'idle',
  });
  // Answers are held to their schemas by the types. Fastify's own serializer would drop fields silently.
  api.setSerializerCompiler(() => (document) => JSON.stringify(document));
  // Every body is read as JSON, whatever its content type, so that plain `curl -d` works. It may be empty.
  api.removeAllContentTypeParsers();
  api.addContentTypeParser('*', { parseAs: 'string' }, (_request, body, done) => {
    try {
      done(null, body.length === 0 ? undefined : JSON.parse(String(body)));
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause);
      done(
        new AgentError('BAD_USAGE', `The request is not JSON: ${why}`, { hint: 'see docs/api.md', cause }),
      );
    }
  });
  api.setErrorHandler((thrown: FastifyError, request, reply) => {
    const error = translate(thrown, request);
    if (error.code === 'INTERNAL') log.error({ err: thrown, url: request.url }, 'a request failed');
    return reply.status(httpStatus(error.code)).send(error.toDocument());
  });
  api.setNotFoundHandler((request, reply) => {
    const error = new AgentError('BAD_USAGE', `There is no ${request.method} ${request.url}`, {
      hint: 'docs/api.md lists the routes',
    });
    return reply.status(404).send(error.toDocument());
  });
  for (const document of documents) api.addSchema(document);
  api.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: { title: 'dattod', description: 'The API of dattod (docs/api.md).', version: agentVersion },
    },
    refResolver: { buildLocalReference: ({ $id }) => $id as string },
  });
  // The routes come after the plugin, which collects them.
  api.register((all: Api, _options, done) => {
    jobRoutes(all, context);
    trackingRoutes(all, context);
    machineRoutes(all, context);
    all.get('/openapi.json', { schema: { summary: 'this API as an OpenAPI document' } }, () => all.swagger());
    done();
  });
  return api;
}

/**
 * Listens on the socket. Replaces a socket that an earlier daemon left behind. Throws FILE_EXISTS if the path holds
 * another kind of file, and FILE_ERROR if the socket cannot be created.
 */
export async function listen(api: Api, socket: string): Promise<void> {
  await api.ready();
  await listenOn(api.server, { path: socket }, 'choose another path with --socket');
}

function translate(thrown: FastifyError, request: FastifyRequest): AgentError {
  const refused = refusal(thrown, request);
  if (refused !== undefined) return refused;
  // The thrown value may be anything, whatever its type says.
  const fromFastify = errnoCode(thrown)?.startsWith('FST_') === true && (thrown.statusCode ?? 500) < 500;
  return fromFastify
    ? new AgentError('BAD_USAGE', thrown.message, { hint: 'see docs/api.md', cause: thrown })
    : toAgentError(thrown);
}

/** Translates the errors of Ajv. Returns undefined for any other error. */
function refusal(thrown: FastifyError, request: FastifyRequest): AgentError | undefined {
  const { validation, validationContext } = thrown;
  if (validation === undefined) return undefined;
  const value = { querystring: request.query, params: request.params, body: request.body };
  const part =
    validationContext === 'querystring' || validationContext === 'params' ? validationContext : 'body';
  const schema = (request.routeOptions.schema?.[part] ?? {}) as JsonSchema;
  const problem = findProblem(schema, value[part], validation);
  const text =
    problem.name !== ''
      ? problemText(problem)
      : value.body === undefined
        ? 'it has no body'
        : `its body ${problemText(problem)}`;
  return new AgentError('BAD_USAGE', `The request is not well formed: ${text}`, {
    hint: problemHint(problem) ?? 'see docs/api.md',
    cause: thrown,
  });
}
