/**
 * `./quickstart` makes a full backup of a scratch device while a program writes to it, and proves that the image is
 * right. Then it makes two recovery points in a vault and restores from them (vault.ts).
 *
 * `./quickstart SOURCE DIRECTORY` makes and proves an image of a real device in DIRECTORY, without a vault.
 *
 * It runs the programs of build/ as a person would, the daemon and the receiver each in its own session. It removes
 * everything it made, also after a failure or Ctrl-C; only the image of a real device stays.
 */
import { existsSync, mkdirSync, mkdtempSync, realpathSync, statSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join, resolve } from 'node:path';
import Table from 'cli-table3';
import { formatBytes } from '../../src/base/bytes.ts';
import { Cleanup } from './cleanup.ts';
import { type FrozenList, listEverything, listSample } from './frozen-list.ts';
import { background, command, visibly, waitForSocket } from './processes.ts';
import { type Proof, proveImage } from './prove.ts';
import { makeScratchDevice, startWriter } from './scratch.ts';
import { chooseDevice, type ListedDevice, refuseOnItself } from './source.ts';
import { showVault, writeConfiguration } from './vault.ts';

/** The fields of `dattocli jobs --json` that are used here. */
interface JobReport {
  readonly uuid: string;
  readonly state: string;
  readonly created_at: string;
  readonly finished_at: string | null;
  readonly warnings: readonly { readonly message: string }[];
  readonly devices: readonly {
    readonly device: string;
    readonly used_bytes: number;
    readonly bytes_sent: number;
    readonly bytes_transferred: number;
    readonly freeze_ms: number | null;
  }[];
}

interface Places {
  /** Directory for the images. */
  readonly images: string;
  /** Directory for sockets, logs and lists. It lies in memory, so that a frozen filesystem cannot block it. */
  readonly memory: string;
  /** Directory for mount points and the scratch device. */
  readonly work: string;
}

const root = join(import.meta.dirname, '../..');
const build = (program: string) => join(root, 'build', program);
const say = (line: string) => console.log(`quickstart: ${line}`);

const cleanup = new Cleanup();
let interrupted = false;
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
  process.on(signal, () => {
    if (!interrupted) console.error(`\nquickstart: ${signal}, cleaning up`);
    interrupted = true;
    void cleanup.run();
  });

await main(process.argv.slice(2)).catch((error: unknown) => {
  if (!interrupted) console.error(`quickstart: ${(error as Error).message}`);
  process.exitCode = 1;
});
await cleanup.run();
process.exit(isInterrupted() ? 130 : process.exitCode);

/** This is a function because the compiler does not see that a signal may have changed the variable in the meantime. */
function isInterrupted(): boolean {
  return interrupted;
}

async function main(args: readonly string[]): Promise<void> {
  const [source, directory] = args;
  if (args.length !== 0 && args.length !== 2)
    throw new Error('usage: ./quickstart  or  ./quickstart SOURCE DIRECTORY');
  const places = makePlaces(directory);
  const socket = await startPrograms(places);
  const { device, list, mountPoint } =
    source === undefined ? await scratchDevice(places, socket) : await realDevice(source, places, socket);

  const name = `${basename(device.path)}.img`;
  const target = `nbd+unix:///${name}@${device.size}?socket=${join(places.memory, 'dattosrv.sock')}`;
  const hook = list === undefined ? [] : ['--frozen-hook', list.hook];
  say(`backing up ${device.path} (${formatBytes(device.size)}) to ${join(places.images, name)}`);
  const started = performance.now();
  const code = await visibly(build('dattocli'), [
    ...['startbackup', '--socket', socket, '--full', '--wait', ...hook],
    ...['--device', device.path, '--target', target],
  ]);
  const seconds = (performance.now() - started) / 1000;
  if (code !== 0 && code !== 5) throw new Error(`the backup ended with exit code ${code ?? '?'}`);

  say('proving the image');
  const image = join(places.images, name);
  const proof = await proveImage(image, list, places.work, cleanup);
  for (const finding of proof.findings) console.log(`  ${finding}`);
  const job = await lastJob(socket);
  for (const { message } of job.warnings) console.log(`  warning: ${message}`);
  printTable(device, job, seconds, proof);
  printFreeze(job, list);
  if (source !== undefined) say(`the image is ${image}`);
  if (!proof.proven) process.exitCode = 1;
  if (mountPoint === undefined) return;
  const { memory, work } = places;
  const returned = await showVault({
    dattocli: build('dattocli'),
    ...{ socket, device: device.path, mountPoint, memory, work, cleanup, say },
    ...daemonPlaces(memory),
  });
  say(returned ? 'what came back from the vault is proven' : 'NOT PROVEN');
  if (!returned) process.exitCode = 1;
}

function daemonPlaces(memory: string) {
  return {
    configuration: join(memory, 'config.json'),
    stateDirectory: join(memory, 'state'),
    runDirectory: join(memory, 'run'),
  };
}

function makePlaces(directory: string | undefined): Places {
  const memory = mkdtempSync(existsSync('/dev/shm') ? '/dev/shm/quickstart-' : join(tmpdir(), 'quickstart-'));
  cleanup.add(`remove ${memory}`, () => rm(memory, { recursive: true, force: true }));
  const work = mkdtempSync(join(tmpdir(), 'quickstart-'));
  cleanup.add(`remove ${work}`, () => rm(work, { recursive: true, force: true }));
  if (directory !== undefined && statSync(directory, { throwIfNoEntry: false })?.isDirectory() !== true)
    throw new Error(`${directory} is no directory; make it first:  mkdir -p ${directory}`);
  const images = directory === undefined ? join(work, 'images') : realpathSync(resolve(directory));
  mkdirSync(images, { recursive: true });
  return { images, memory, work };
}

/** Starts dattosrv and dattod. Returns the socket of dattod. */
async function startPrograms({ images, memory, work }: Places): Promise<string> {
  const receiver = join(memory, 'dattosrv.sock');
  const receiverLog = join(memory, 'dattosrv.log');
  const server = await background(build('dattosrv'), ['--create', '--socket', receiver, images], receiverLog);
  cleanup.add('stop dattosrv', () => server.stop());
  await waitForSocket(receiver, server.child, 'dattosrv', receiverLog);
  say(`dattosrv serves ${images} (pid ${server.pid})`);

  const socket = join(memory, 'dattod.sock');
  const log = join(memory, 'dattod.log');
  const pins = join('/sys/fs/bpf', basename(memory));
  // Tracking would continue after the daemon has ended.
  cleanup.add('stop tracking', () => rm(pins, { recursive: true, force: true }));
  const { stateDirectory, runDirectory } = daemonPlaces(memory);
  const daemon = await background(
    build('dattod'),
    [
      ...['--foreground', '--socket', socket, '--pid-file', join(memory, 'dattod.pid'), '--log-file', log],
      ...['--state-dir', stateDirectory, '--run-dir', runDirectory, '--pin-dir', pins],
      ...['--config', writeConfiguration(memory, work)],
    ],
    join(memory, 'dattod.out'),
  );
  cleanup.add('stop dattod', () => daemon.stop());
  await waitForSocket(socket, daemon.child, 'dattod', join(memory, 'dattod.out'));
  say(`dattod answers on ${socket} (pid ${daemon.pid})`);
  return socket;
}

async function listDevices(socket: string): Promise<ListedDevice[]> {
  const answer = await command(build('dattocli'), ['devices', '--socket', socket, '--json']);
  return JSON.parse(answer) as ListedDevice[];
}

async function scratchDevice(places: Places, socket: string) {
  const scratch = await makeScratchDevice(root, places.work, cleanup);
  say(`${scratch.device} holds ${scratch.files} real files in an ext4 filesystem on ${scratch.mountPoint}`);
  const list = listEverything(scratch.mountPoint, places.memory);
  await startWriter(scratch, join(places.memory, 'writer.log'), cleanup);
  say('a writer makes, grows, renames and removes files on it all the time');
  const { mountPoint } = scratch;
  return { device: chooseDevice(await listDevices(socket), scratch.device), list, mountPoint };
}

async function realDevice(source: string, places: Places, socket: string) {
  const device = chooseDevice(await listDevices(socket), source);
  await refuseOnItself(device, places.images);
  const mount = device.mounts.find((each) => each.root === '/');
  if (mount === undefined) return { device, list: undefined, mountPoint: undefined };
  say(`choosing a sample of files on ${mount.path} to compare`);
  return { device, list: await listSample(mount.path, places.memory), mountPoint: undefined };
}

/** Returns the job that was just run. */
async function lastJob(socket: string): Promise<JobReport> {
  const answer = await command(build('dattocli'), ['jobs', '--socket', socket, '--json']);
  const [job] = JSON.parse(answer) as JobReport[];
  if (job === undefined) throw new Error('dattod knows of no job');
  return job;
}

function printTable(device: ListedDevice, job: JobReport, seconds: number, proof: Proof): void {
  const [status] = job.devices;
  if (status === undefined) return;
  const table = new Table({
    head: ['device', 'used', 'sent', 'time', 'rate', 'frozen for', 'verdict'],
    style: { head: [], border: [] },
  });
  table.push([
    `${device.path} (${formatBytes(device.size)})`,
    formatBytes(status.used_bytes),
    formatBytes(status.bytes_sent),
    `${seconds.toFixed(1)} s`,
    `${formatBytes(Math.round(status.bytes_transferred / seconds))}/s`,
    status.freeze_ms === null ? '?' : `${Math.round(status.freeze_ms)} ms`,
    proof.proven ? 'image proven' : 'NOT PROVEN',
  ]);
  console.log(table.toString());
}

function printFreeze(job: JobReport, list: FrozenList | undefined): void {
  const took = list?.tookMs();
  if (took === undefined || (job.devices[0]?.freeze_ms ?? 0) === 0) return;
  say(`of the freeze, ${took} ms went into the list of checksums that the image was compared with`);
}
