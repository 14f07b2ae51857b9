/**
 * One thread of the image server. It gets the descriptors of its connections. It is a thread because its reads and writes of
 * the images block.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { createLog } from '../../base/log.ts';
import { answerCalls, type CallHandlers } from '../../base/thread-calls.ts';
import { BufferPool } from './buffer-pool.ts';
import { serveConnection, type ServedConnection, type ServerOptions } from './connection.ts';
import { DirectoryExports } from './directory-exports.ts';
import type { ImageThreadProtocol, ImageWorkerData } from './image-server.ts';
import { MemoryBudget } from './memory-budget.ts';
import { stderrSink } from './stderr-sink.ts';
import { acceptTls, loadTls } from './tls.ts';
import { Wire } from './wire.ts';

const port = parentPort;
if (port === null) throw new Error('image-server-worker.ts is started as a thread');

const settings = workerData as ImageWorkerData;
const tlsOptions = settings.tls === undefined ? undefined : await loadTls(settings.tls);
const serverOptions: ServerOptions = {
  exports: new DirectoryExports(settings.exports),
  log: createLog(stderrSink, settings.logLevel),
  pool: new BufferPool(settings.memory / 4),
  budget: new MemoryBudget({ shared: settings.memory }),
  ...(tlsOptions === undefined ? {} : { startTls: (wire: Wire) => acceptTls(wire, tlsOptions) }),
};
const connections = new Map<number, ServedConnection>();

const calls: CallHandlers<ImageThreadProtocol> = {
  serve: async ({ id, fd }) => {
    try {
      const connection = serveConnection(Wire.overDescriptor(fd), {
        ...serverOptions,
        entered: () => {
          owner.notify('entered', id);
          return true;
        },
      });
      connections.set(id, connection);
      await connection.done;
    } catch (error) {
      // The connection ended before this thread could take it over.
      serverOptions.log.warn({ error: String(error) }, 'connection lost');
    } finally {
      connections.delete(id);
    }
    return undefined;
  },
  stop: async () => {
    for (const connection of connections.values()) connection.stop();
    await Promise.all([...connections.values()].map((connection) => connection.done));
    return undefined;
  },
};

const owner = answerCalls<ImageThreadProtocol>(port, {
  answer: (name, args) => calls[name](args),
  notices: { drop: ({ id, reason }) => connections.get(id)?.drop(reason) },
});
