/** The receivers. Each is started again for every run, over a new, empty image. */
import { open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { NbdServerProcess } from '../../test/helpers/nbd-process.ts';
import { startNbdServer } from '../../test/helpers/nbd-server.ts';
import { startNbdkit } from '../../test/helpers/nbdkit.ts';

export interface BenchServer {
  readonly uri: string;
  stop(): Promise<void>;
}

export const serverKinds = ['nbd-server', 'nbdkit file'] as const;
export type ServerKind = (typeof serverKinds)[number];

export async function startServer(kind: ServerKind, directory: string, size: number): Promise<BenchServer> {
  const image = join(directory, 'target');
  await rm(image, { force: true });
  const file = await open(image, 'wx');
  await file.truncate(size);
  await file.close();
  const server = await start(kind, image);
  return {
    uri: kind === 'nbd-server' ? `${server.uri}/image` : server.uri,
    stop: async () => {
      await server.stop();
      await rm(image, { force: true });
    },
  };
}

/** Starts a server that listens on TCP over loopback, as a receiver on another machine would. */
function start(kind: ServerKind, image: string): Promise<NbdServerProcess> {
  return kind === 'nbd-server'
    ? startNbdServer({ exports: { image: { exportname: image, flush: true, fua: true, trim: true } } })
    : startNbdkit(['file', image], { tcp: true });
}
