/**
 * The process that serves an image to a mount, on a private Unix socket, until it gets SIGTERM. It reads its order as one
 * JSON document from standard input, because the order contains the vault's secrets. It writes one answer to standard
 * output: the URI when it is ready, or the error. Its log goes to standard error.
 */
import { text } from 'node:stream/consumers';
import { toAgentError } from '../../base/errors.ts';
import { createLog } from '../../base/log.ts';
import { stderrSink } from '../../nbd/server/stderr-sink.ts';
import { exportImage } from '../export/export-image.ts';
import type { ExportAnswer, ExportOrder } from './export-process.ts';

let stop: (() => Promise<void>) | undefined;
let stopping = false;
const end = (): void => {
  if (stopping) return;
  stopping = true;
  void (stop?.() ?? Promise.resolve()).finally(() => process.exit(0));
};
for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, end);
process.on('SIGHUP', () => undefined);
process.stdout.on('error', () => undefined);

try {
  const order = JSON.parse(await text(process.stdin)) as ExportOrder;
  const server = await exportImage({ ...order, log: createLog(stderrSink, 'warn') });
  stop = () => server.stop();
  say({ uri: server.uri });
} catch (error) {
  say({ error: toAgentError(error).toDocument() });
  process.exitCode = 1;
}

function say(answer: ExportAnswer): void {
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
