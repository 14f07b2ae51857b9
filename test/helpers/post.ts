/** Posts a document to the daemon's API, much quicker than by a process of dattocli. */
import { request } from 'node:http';
import type { ErrorDocument } from '../../src/base/errors.ts';

export type Answer<T> =
  { readonly body: T; readonly refused?: never } | { readonly refused: ErrorDocument; readonly body?: never };

export function post<T>(socketPath: string, path: string, document: object = {}): Promise<Answer<T>> {
  return new Promise((resolve, reject) => {
    const headers = { 'content-type': 'application/json' };
    request({ socketPath, path, method: 'POST', headers, timeout: 120_000 }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
      response.once('end', () => {
        const value: unknown = JSON.parse(text);
        const good = response.statusCode !== undefined && response.statusCode < 300;
        resolve(good ? { body: value as T } : { refused: value as ErrorDocument });
      });
    })
      .once('error', reject)
      .end(JSON.stringify(document));
  });
}
