/** Helpers for tests of the NBD client: an image for the server, and the client's end in every case. */
import { chmodSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { MiB } from '../../src/base/bytes.ts';
import { type ConnectOptions, connectNbd } from '../../src/nbd/client/connect.ts';
import type { NbdTarget } from '../../src/nbd/client/target.ts';
import { parseNbdUri } from '../../src/nbd/client/uri.ts';
import type { NbdServerProcess } from './nbd-process.ts';

/** Makes a sparse image file that all users may write. */
export function imageIn(directory: string, name: string, size = 16 * MiB): string {
  const path = join(directory, name);
  writeFileSync(path, '');
  truncateSync(path, size);
  chmodSync(path, 0o666);
  return path;
}

export async function withServer<T>(
  start: Promise<NbdServerProcess>,
  run: (server: NbdServerProcess) => Promise<T>,
): Promise<T> {
  const server = await start;
  try {
    return await run(server);
  } finally {
    await server.stop();
  }
}

export async function withTarget<T>(
  start: Promise<NbdServerProcess>,
  run: (target: NbdTarget, server: NbdServerProcess) => Promise<T>,
  options: ConnectOptions = {},
): Promise<T> {
  return withServer(start, async (server) => {
    const target = await connectNbd(parseNbdUri(server.uri), options);
    try {
      return await run(target, server);
    } finally {
      target.destroy();
    }
  });
}

export function withQuery(uri: string, query: string): string {
  return uri + (uri.includes('?') ? '&' : '/?') + query;
}
