/**
 * The API: HTTP with JSON on a Unix socket that only root can open (mode 0600). docs/api.md documents it.
 * Each error is an `ErrorDocument` with a matching HTTP status.
 */
import { fastify, type FastifyError, type FastifyInstance } from 'fastify';
import { AgentError, errnoCode, toAgentError } from '../base/errors.ts';
import { listenOn } from '../base/listen.ts';
import type { Log } from '../base/log.ts';
import { httpStatus } from './http-status.ts';
import { type RouteContext, routes } from './routes.ts';

/** Builds the server with all routes. The server does not listen yet. */
export function createApi(context: RouteContext, log: Log): FastifyInstance {
  const app = fastify({
    logger: false,
    bodyLimit: 256 * 1024,
    ajv: { customOptions: { coerceTypes: false, removeAdditional: false } },
    forceCloseConnections: 'idle',
  });
  for (const route of routes)
    app.route({
      method: route.method,
      url: route.url,
      ...(route.schema === undefined ? {} : { schema: route.schema }),
      handler: (request, reply) => {
        if (route.status !== undefined) reply.status(route.status);
        return route.handler(context, request, reply);
      },
    });
  // Every body is read as JSON, whatever its content type, so that plain `curl -d` works. It may be empty.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', { parseAs: 'string' }, (_request, body, done) => {
    try {
      done(null, body.length === 0 ? undefined : JSON.parse(String(body)));
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause);
      done(
        new AgentError('BAD_USAGE', `The request is not JSON: ${why}`, { hint: 'see docs/api.md', cause }),
      );
    }
  });
  app.setErrorHandler((thrown: FastifyError, request, reply) => {
    const error = translate(thrown);
    if (error.code === 'INTERNAL') log.error({ err: thrown, url: request.url }, 'a request failed');
    return reply.status(httpStatus(error.code)).send(error.toDocument());
  });
  app.setNotFoundHandler((request, reply) => {
    const error = new AgentError('BAD_USAGE', `There is no ${request.method} ${request.url}`, {
      hint: 'docs/api.md lists the routes',
    });
    return reply.status(404).send(error.toDocument());
  });
  return app;
}

/**
 * Listens on the socket. Replaces a socket that an earlier daemon left behind. Throws FILE_EXISTS if the path holds
 * another kind of file, and FILE_ERROR if the socket cannot be created.
 */
export async function listen(app: FastifyInstance, socket: string): Promise<void> {
  await app.ready();
  await listenOn(app.server, { path: socket }, 'choose another path with --socket');
}

function translate(thrown: FastifyError): AgentError {
  if (thrown.validation !== undefined) {
    const first = thrown.validation[0];
    const extra = first?.params['additionalProperty'];
    const choices = first?.params['allowedValues'];
    const detail =
      typeof extra === 'string'
        ? `: "${extra}"`
        : Array.isArray(choices)
          ? `: ${choices.map(String).join(', ')}`
          : '';
    return new AgentError('BAD_USAGE', `The request is not well formed: ${thrown.message}${detail}`, {
      hint: 'see docs/api.md',
      cause: thrown,
    });
  }
  // The thrown value may be anything, whatever its type says.
  const fromFastify = errnoCode(thrown)?.startsWith('FST_') === true && (thrown.statusCode ?? 500) < 500;
  return fromFastify
    ? new AgentError('BAD_USAGE', thrown.message, { hint: 'see docs/api.md', cause: thrown })
    : toAgentError(thrown);
}
