/** `export POINT`: serves the point over NBD from this process until Ctrl-C. */
import type { ExportDocument } from '../../api/vault/output/recovery.ts';
import { Command } from 'commander';
import { mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { formatBytes } from '../../base/bytes.ts';
import { AgentError } from '../../base/errors.ts';
import { freshBytes } from '../../base/random.ts';
import type { ExportAddress } from '../../restore/export/server.ts';
import type { Context, Run } from '../context.ts';
import { namedImage } from '../vault/image.ts';
import {
  type VaultValues,
  addDeviceOption,
  addRunDirectory,
  addVaultOptions,
  pointArgument,
  toPath,
} from '../vault/options.ts';
import { withVault } from '../vault/session.ts';

interface Values extends VaultValues {
  readonly device?: string;
  readonly listen?: string;
  readonly writable?: true;
  readonly overlayDir?: string;
  readonly runDir: string;
}

export function exportCommand(run: Run): Command {
  const command = new Command('export')
    .description(
      'Serves a device of a recovery point as an NBD export until Ctrl-C. Prints its URI on the ' +
        'first line.',
    )
    .argument(...pointArgument);
  addDeviceOption(command)
    .option(
      '--listen <address>',
      'path of a socket, or HOST:PORT on loopback (a socket in the run directory)',
    )
    .option('--writable', 'allow writes; they are discarded when the export ends')
    .option(
      '--overlay-dir <path>',
      'with --writable: directory for written data until then (TMPDIR)',
      toPath,
    );
  return addRunDirectory(addVaultOptions(command)).action(run(exportPoint));
}

async function exportPoint(context: Context, self: Command): Promise<number> {
  const [name = ''] = self.args;
  const values = self.opts<Values>();
  const writable = values.writable === true;
  if (values.overlayDir !== undefined && !writable)
    throw new AgentError('BAD_USAGE', '--overlay-dir needs --writable');
  const { exportImage, silentLog } = await import('../vault/restore-library.ts');
  const listen = addressOf(values);
  const { point, device, spec } = await withVault(context, self, (session) =>
    namedImage(session, name, values.device),
  );
  if (listen.kind === 'unix') await mkdir(dirname(listen.path), { recursive: true, mode: 0o700 });
  let stopListening = (): void => undefined;
  const interrupted = new Promise<void>((resolve) => {
    let interrupts = 0;
    stopListening = context.io.onInterrupt(() => {
      if (++interrupts > 1) context.io.quit(4);
      resolve();
    });
  });
  try {
    const server = await exportImage({
      image: spec,
      name: point.id,
      description: `${device.path} of ${point.machine.name}, ${point.finished}`,
      listen,
      ...(writable ? { overlay: { directory: values.overlayDir } } : {}),
      log: silentLog(),
    });
    try {
      const document: ExportDocument = {
        ...{ uri: server.uri, point: point.id, device: device.path, size: device.size, writable },
      };
      // A client cannot connect without the address, so a failed print is an error.
      context.deliver(document, () => `${server.uri}\n`);
      if (!context.json)
        context.io.err(
          `${device.path} of ${point.id}, ${formatBytes(device.size)}, ${writable ? 'writable: writes are discarded at the end' : 'read-only'}; until Ctrl-C\n`,
        );
      await interrupted;
    } finally {
      await server.stop();
    }
  } finally {
    stopListening();
  }
  return 0;
}

/** Parses `PATH` or `HOST:PORT`; default: a socket in the run directory. Throws BAD_USAGE. */
export function addressOf({ listen, runDir }: Pick<Values, 'listen' | 'runDir'>): ExportAddress {
  if (listen === undefined)
    return { kind: 'unix', path: join(runDir, `export-${freshBytes(4).toString('hex')}.sock`) };
  const tcp = /^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):(\d{1,5})$/.exec(listen);
  if (tcp === null) {
    if (!listen.includes('/'))
      throw new AgentError('BAD_USAGE', `--listen "${listen}" must be HOST:PORT or the path of a socket`);
    return { kind: 'unix', path: toPath(listen) };
  }
  const [, host = '', port = ''] = tcp;
  if (Number(port) > 65535)
    throw new AgentError('BAD_USAGE', `--listen "${listen}": port ${port} is above 65535`);
  return { kind: 'tcp', host: host.replace(/^\[(.*)\]$/, '$1'), port: Number(port) };
}
