/**
 * The command line of dattosrv, an NBD server for a directory of image files (docs/dattosrv.md). The server itself is
 * src/nbd/server/image-server.ts.
 */
import { statSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { resolve } from 'node:path';
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { AgentError, toAgentError } from '../base/errors.ts';
import { createLog } from '../base/log.ts';
import { StandardOutput } from '../base/standard-output.ts';
import { agentVersion } from '../base/version.ts';
import { writeError } from '../base/visible.ts';
import { checkedListenAddress, parseListenAddress } from '../nbd/server/address.ts';
import { parseExportName } from '../nbd/server/export-name.ts';
import { type ImageServerOptions, startImageServer } from '../nbd/server/image-server.ts';
import { stderrSink } from '../nbd/server/stderr-sink.ts';
import { loadTls, type TlsSettings, verifiesPeers } from '../nbd/server/tls.ts';

interface Arguments {
  directory?: string;
  listen: string;
  unix?: string;
  socket?: string;
  create: boolean;
  readOnly: boolean;
  defaultExport?: string;
  tlsCertificates?: string;
  tlsVerifyPeer: boolean;
  tlsPsk?: string;
  maxConnections: number;
  threads: number;
  json: boolean;
  logLevel: string;
}

const output = new StandardOutput();

const program = new Command('dattosrv')
  .description('Serves the image files of a directory over NBD.')
  .version(agentVersion)
  .argument('[DIRECTORY]', 'directory of the images (default: the current directory)')
  .option('-d, --directory <DIR>', 'the same, as an option')
  .option('-l, --listen <HOST:PORT>', 'TCP address; port 0 takes any free port', '127.0.0.1:10809')
  .option('-u, --unix <PATH>', 'listen on a Unix socket (mode 0600) instead of TCP')
  .option('--socket <PATH>', 'another name of --unix')
  .option('-c, --create', 'create a missing image when a client opens NAME@SIZE', false)
  .option('-r, --read-only', 'clients cannot write', false)
  .option('-e, --default-export <NAME>', 'export for the empty name, as NAME or NAME@SIZE')
  .option(
    '--tls-certificates <DIR>',
    'require TLS, with server-cert.pem and server-key.pem of this directory',
  )
  .option(
    '--tls-verify-peer',
    'require client certificates that are signed by ca-cert.pem of that directory',
    false,
  )
  .option(
    '--tls-psk <FILE>',
    'require TLS, with pre-shared keys (lines of identity:hexkey, as psktool writes them)',
  )
  .option(
    '--max-connections <N>',
    'limit of connections; further ones are refused',
    wholeNumber(1, 100_000),
    128,
  )
  .option('--threads <N>', 'threads that serve connections', wholeNumber(1, 256), defaultThreads())
  .option('--json', 'print the ready line as JSON: {"listening": URI}', false)
  .addOption(
    new Option('--log-level <LEVEL>', 'messages to write to standard error')
      .choices(['debug', 'info', 'warn', 'error', 'silent'])
      .default('warn'),
  )
  .allowExcessArguments(false)
  .configureOutput({ writeOut: (text) => output.write(text) })
  .exitOverride();

/** Returns the number of processors, from 2 to 8. More threads than processors only take more memory. */
function defaultThreads(): number {
  return Math.min(8, Math.max(2, availableParallelism()));
}

function wholeNumber(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < least || value > most)
      throw new InvalidArgumentError(`It must be a whole number from ${least} to ${most}.`);
    return value;
  };
}

/** Checks all arguments before the server starts. Throws BAD_USAGE, FILE_ERROR, NBD_TLS. */
async function toServerOptions(
  argument: string | undefined,
  given: Arguments,
  listenWasGiven: boolean,
): Promise<ImageServerOptions> {
  if (argument !== undefined && given.directory !== undefined)
    throw new AgentError('BAD_USAGE', `two directories are given: ${argument} and ${given.directory}`);
  const directory = resolve(argument ?? given.directory ?? '.');
  if (statSync(directory, { throwIfNoEntry: false })?.isDirectory() !== true)
    throw new AgentError('BAD_USAGE', `${directory} is not a directory`, {
      hint: 'name an existing directory: dattosrv DIRECTORY',
    });
  const unix = given.unix ?? given.socket;
  if (unix !== undefined && listenWasGiven)
    throw new AgentError('BAD_USAGE', '--unix and --listen cannot be combined');
  if (given.create && given.readOnly)
    throw new AgentError('BAD_USAGE', '--create and --read-only cannot be combined');
  if (given.defaultExport !== undefined) checkDefaultExport(given.defaultExport);
  const tls = await toTlsSettings(given);
  const peersAreVerified = tls !== undefined && verifiesPeers(tls);
  return {
    listen:
      unix === undefined
        ? await checkedListenAddress(parseListenAddress(given.listen), peersAreVerified)
        : { path: resolve(unix) },
    exports: {
      directory,
      readOnly: given.readOnly,
      create: given.create,
      defaultExport: given.defaultExport,
    },
    tls,
    maximumConnections: given.maxConnections,
    threads: given.threads,
    log: createLog(stderrSink, given.logLevel),
  };
}

function checkDefaultExport(name: string): void {
  try {
    parseExportName(name);
  } catch (error) {
    throw new AgentError('BAD_USAGE', `--default-export: ${(error as Error).message}`, { cause: error });
  }
}

async function toTlsSettings(given: Arguments): Promise<TlsSettings | undefined> {
  const { tlsCertificates, tlsPsk, tlsVerifyPeer } = given;
  if (tlsVerifyPeer && tlsCertificates === undefined)
    throw new AgentError('BAD_USAGE', '--tls-verify-peer needs --tls-certificates DIR');
  if (tlsCertificates !== undefined && tlsPsk !== undefined)
    throw new AgentError('BAD_USAGE', '--tls-certificates and --tls-psk cannot be combined', {
      hint: 'start two servers on the same directory if some clients have certificates and others have keys',
    });
  if (tlsCertificates === undefined && tlsPsk === undefined) return undefined;
  const settings: TlsSettings =
    tlsCertificates === undefined
      ? { psk: resolve(tlsPsk ?? '') }
      : { certificates: resolve(tlsCertificates), verifyPeer: tlsVerifyPeer };
  await loadTls(settings);
  return settings;
}

async function main(): Promise<void> {
  program.parse();
  const given = program.opts<Arguments>();
  const listenWasGiven = program.getOptionValueSource('listen') === 'cli';
  const options = await toServerOptions(program.args[0], given, listenWasGiven);
  const server = await startImageServer(options);
  const ended = new Promise<NodeJS.Signals>((resolve) => {
    process.once('SIGTERM', resolve);
    process.once('SIGINT', resolve);
  });
  output.write(
    given.json
      ? `${JSON.stringify({ listening: server.uri })}\n`
      : `dattosrv ${agentVersion} serves ${options.exports.directory} at ${server.uri}\n`,
  );
  try {
    // Without the ready line, the caller does not know that the server runs, nor where.
    output.finish();
  } catch (error) {
    await server.stop();
    throw error;
  }
  const signal = await Promise.race([ended, server.failed]);
  options.log.info({ signal }, 'ending');
  await server.stop();
}

try {
  await main().catch((thrown: unknown) => {
    // Commander throws also after it has printed the help or the version.
    if (!(thrown instanceof CommanderError) || thrown.exitCode !== 0) throw thrown;
  });
  output.finish();
} catch (thrown) {
  if (thrown instanceof CommanderError) {
    // commander has printed the error.
    process.exitCode = 2;
  } else {
    const error = toAgentError(thrown);
    writeError(
      process.argv.includes('--json')
        ? `${JSON.stringify(error.toDocument())}\n`
        : `dattosrv: ${error.message}${error.hint ? `\n  hint: ${error.hint}` : ''}\n`,
    );
    process.exitCode = error.exitCode;
    // Threads that still run would keep the process alive.
    if (error.code === 'INTERNAL') process.exit();
  }
}
