/** A client of the daemon's API: HTTP over the Unix socket (docs/api.md). */
import { request, type IncomingMessage } from 'node:http';
import { AgentError, type ErrorDocument, errnoCode } from '../base/errors.ts';
import type { JobStatus } from '../api/job-status.ts';
import { EventParser } from './events.ts';

/** Time limits for an answer, milliseconds. A POST may start a job, whose checks can take minutes. */
const answerMs = 60_000;
const startMs = 600_000;

export class Client {
  readonly #socket: string;

  constructor(socket: string) {
    this.#socket = socket;
  }

  /** Returns the answer of a route; the caller knows its type. Throws the daemon's own error, or DAEMON_UNREACHABLE. */
  async get<T>(path: string): Promise<T> {
    return (await this.#ask('GET', path)) as T;
  }

  async post<T>(path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
    return (await this.#ask('POST', path, body, signal)) as T;
  }

  /** The events of a path until the daemon ends the stream. Throws DAEMON_UNREACHABLE if the connection breaks. */
  async *events(path: string, signal?: AbortSignal): AsyncGenerator<JobStatus> {
    const response = await this.#open('GET', path, undefined, signal);
    if (response.statusCode !== 200) throw errorOf(await textOf(response));
    const parser = new EventParser();
    response.setEncoding('utf8');
    try {
      for await (const chunk of response)
        for (const data of parser.feed(String(chunk))) yield JSON.parse(data) as JobStatus;
    } catch (error) {
      signal?.throwIfAborted();
      throw this.#unreachable(error);
    }
  }

  async #ask(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<unknown> {
    const response = await this.#open(method, path, body, signal);
    const text = await textOf(response).catch((error: unknown) => {
      signal?.throwIfAborted();
      throw this.#unreachable(error);
    });
    const good = response.statusCode !== undefined && response.statusCode < 300;
    if (!good) throw errorOf(text);
    return JSON.parse(text) as unknown;
  }

  #open(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      const sent = request({
        socketPath: this.#socket,
        method,
        path,
        agent: false,
        timeout: method === 'POST' ? startMs : answerMs,
        headers: body === undefined ? {} : { 'content-type': 'application/json' },
        ...(signal === undefined ? {} : { signal }),
      });
      sent.once('response', (response) => {
        // No time limit after the first answer: a job may have no event to report for long.
        sent.setTimeout(0);
        resolve(response);
      });
      sent.once('timeout', () => sent.destroy(new Error('it sent no answer in time')));
      sent.once('error', (error) => reject(this.#unreachable(error)));
      sent.end(body === undefined ? undefined : JSON.stringify(body));
    });
  }

  #unreachable(error: unknown): Error {
    if (error instanceof Error && (error instanceof AgentError || error.name === 'AbortError')) return error;
    const code = errnoCode(error);
    if (code === 'EACCES' || code === 'EPERM')
      return new AgentError('NO_PERMISSION', `No permission to use the socket ${this.#socket}`, {
        hint: 'run dattocli with sudo',
        cause: error,
      });
    const why = code === 'ENOENT' ? 'the socket does not exist' : (code ?? (error as Error).message);
    return new AgentError('DAEMON_UNREACHABLE', `dattod does not answer on ${this.#socket}: ${why}`, {
      hint: "start it with 'dattod', or name its socket with --socket",
      cause: error,
    });
  }
}

async function textOf(response: IncomingMessage): Promise<string> {
  let text = '';
  response.setEncoding('utf8');
  for await (const chunk of response) text += String(chunk);
  return text;
}

function errorOf(text: string): AgentError {
  try {
    return AgentError.fromDocument(JSON.parse(text) as ErrorDocument);
  } catch {
    return new AgentError('INTERNAL', `The program on the socket is not dattod: ${text.slice(0, 100)}`);
  }
}
