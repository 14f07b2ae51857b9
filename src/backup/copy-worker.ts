/**
 * Entry of a copying thread: one source, one connection to the target, calls from the coordinator one after
 * the other (messages.ts). `abort` alone overtakes: it breaks the connection, so that what waits for it ends.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { Bitmap } from '../base/bitmap.ts';
import { alignUp } from '../base/bytes.ts';
import { AgentError, toAgentError } from '../base/errors.ts';
import { urgently } from '../base/urgency.ts';
import { type DeviceSource, openDeviceSource } from '../block/device-source.ts';
import type { Target } from '../block/target.ts';
import { KeptMap, type KeptReading, ungrouped } from '../filesystems/kept-map.ts';
import { markUsed } from '../filesystems/mark-used.ts';
import type { ReadUsedMapOptions } from '../filesystems/read-used-map.ts';
import { Control } from './copy/control.ts';
import { FingerprintFile, UnitHasher, fingerprintUnit } from '../tracking/fingerprints.ts';
import {
  type TargetFacts,
  type ThreadCalls,
  type ThreadReply,
  type ThreadRequest,
  type ThreadSetup,
  isUrgent,
} from './copy/messages.ts';
import { Samples } from './copy/samples.ts';
import { Manners } from './copy/manners.ts';
import { SpoolRoom } from './copy/spool-room.ts';
import { wholeUnits } from './copy/segments.ts';
import { Transfer } from './copy/transfer.ts';
import { WitnessTaker } from './copy/witnesses.ts';
import { openTarget } from './targets.ts';
import { VaultTarget } from '../vault/writing/vault-target.ts';

const port = parentPort;
if (port === null) throw new Error('copy-worker is started as a thread by the copy pool');

const setup = workerData as ThreadSetup;
const control = new Control(setup.threads, setup.control);
const items = new Float64Array(setup.items);
const send = new Bitmap(setup.deviceSize, setup.unit, setup.send);
const unconfirmed = new Bitmap(setup.deviceSize, setup.unit, setup.unconfirmed);
const stashed = new Bitmap(setup.deviceSize, setup.unit, setup.stashed);
const found = new Bitmap(setup.deviceSize, fingerprintUnit, setup.found);
const targetZero = new Bitmap(setup.deviceSize, fingerprintUnit, setup.targetZero);
const samples = new Samples(setup.samples);
const hasher = new UnitHasher(Buffer.from(setup.key));
const witnesses = new WitnessTaker(hasher, setup.threads);
const manners = setup.impact === undefined ? undefined : new Manners(setup.impact, control);

const aborting = new AbortController();
let source: DeviceSource | undefined;
let target: Target | undefined;
let transfer: Transfer | undefined;
let fingerprints: FingerprintFile | undefined;

type Handlers = {
  [Name in keyof ThreadCalls]: (args: ThreadCalls[Name]['args']) => Promise<ThreadCalls[Name]['result']>;
};

const handlers: Handlers = {
  open: async ({ waitMs }) => {
    source ??= await openSource(setup.sourcePath);
    return connect(waitMs);
  },
  useSource: async ({ path }) => {
    const before = source;
    source = await openSource(path);
    await before?.close();
    transfer = makeTransfer(connected().target);
    return undefined;
  },
  reopenTarget: ({ waitMs }) => {
    // Of what no flush has confirmed nothing is known any more.
    witnesses.take();
    return connect(waitMs);
  },
  map: async (args) => {
    const start = performance.now();
    const outcome = await (args.state === 'frozen' ? urgently(() => readMap(args)) : readMap(args));
    return { ...outcome, ms: performance.now() - start };
  },
  zeroMap: async ({ used }) => {
    const to = connected().target;
    for (const { offset, length } of wholeUnits(new Bitmap(setup.deviceSize, setup.unit, used)))
      // The device may end within a block of the target.
      for await (const zero of to.zeroExtents(offset, alignUp(length, to.minimumBlock)))
        markWholeUnits(zero.offset, zero.length);
    return undefined;
  },
  measure: ({ first, count }) => connected().measure(first, count),
  run: (args) => {
    const pass = () => connected().run(args);
    if (isUrgent(args.mode)) return urgently(pass);
    return args.considerate && manners !== undefined ? manners.during(pass) : pass();
  },
  spoolLacks: () => Promise.resolve(connected().spoolLacks()),
  spoolHolds: () => Promise.resolve(connected().spoolHolds()),
  sendSpool: async () => {
    await connected().sendSpool();
    return undefined;
  },
  dropSpool: () => {
    connected().dropSpool();
    return Promise.resolve(undefined);
  },
  flush: async () => {
    await connected().target.flush();
    return undefined;
  },
  trim: ({ freed }) => connected().trim(new Bitmap(setup.deviceSize, setup.unit, freed)),
  checkSamples: () => connected().checkSamples(),
  takeWitnesses: () => Promise.resolve(witnesses.take()),
  compare: ({ places }) => connected().compare(places),
  forgetBase: () => {
    if (target instanceof VaultTarget) target.forgetBase();
    return Promise.resolve(undefined);
  },
  seal: async () => {
    const sealed = await connected().target.seal?.();
    return sealed ?? { fresh: 0, stored: 0 };
  },
  buildMap: ({ touched, used }) => {
    if (!(target instanceof VaultTarget)) throw new Error('only a vault has a map');
    return target.buildMap(
      new Bitmap(setup.deviceSize, setup.unit, touched),
      new Bitmap(setup.deviceSize, setup.unit, used),
    );
  },
  close: async () => {
    await target?.close();
    await source?.close();
    return undefined;
  },
};

/** The reading that the next one may build on. */
let earlier: { readonly map: KeptMap; readonly reading: number } | undefined;

async function readMap({ state, used, kept }: ThreadCalls['map']['args']): Promise<KeptReading> {
  const from = opened();
  const readAt = (offset: number, length: number): Promise<Uint8Array> => from.readAt(offset, length);
  const options: ReadUsedMapOptions = {
    state,
    partitionStates: new Map(setup.livePartitions.map((start) => [start, state])),
    expected: setup.expected?.whole,
    partitionsExpected: new Map(setup.expected?.partitions),
    signal: aborting.signal,
  };
  const bitmap = new Bitmap(setup.deviceSize, setup.unit, used);
  const before = earlier;
  earlier = undefined;
  if (kept === undefined)
    return {
      ...(await markUsed(bitmap, readAt, setup.deviceSize, from.sectorSize, options)),
      ...ungrouped,
    };
  const map = before?.reading === kept.reading - 1 ? before.map : new KeptMap(bitmap);
  const written = kept.written && new Bitmap(setup.deviceSize, kept.written.unit, kept.written.bits);
  const outcome = await map.read(readAt, from.sectorSize, options, written);
  earlier = { map, reading: kept.reading };
  return outcome;
}

async function connect(waitMs: number): Promise<TargetFacts> {
  target?.destroy();
  target = await openTarget(setup.target, {
    waitMs,
    first: setup.thread === 0,
    access: setup.access,
    signal: aborting.signal,
    deviceSize: setup.deviceSize,
  });
  if (transfer !== undefined) transfer.useTarget(target);
  else transfer = makeTransfer(target);
  const { name, size, readOnly, abilities, minimumBlock } = target;
  return { name, size, readOnly, abilities, minimumBlock };
}

async function openSource(path: string): Promise<DeviceSource> {
  const opening = await openDeviceSource(path);
  const { size } = opening;
  if (size === setup.deviceSize) return opening;
  await opening.close();
  throw new AgentError(
    'DEVICE_GONE',
    `${path} has ${size} bytes now, and had ${setup.deviceSize} when the job began`,
    { hint: 'start the job again' },
  );
}

function makeTransfer(to: Target): Transfer {
  if (setup.fingerprintPath !== undefined) fingerprints ??= new FingerprintFile(setup.fingerprintPath);
  return new Transfer(to, {
    thread: setup.thread,
    source: manners?.source(opened()) ?? opened(),
    manners,
    control,
    items,
    send,
    unconfirmed,
    stashed,
    found,
    targetZero,
    samples,
    witnesses,
    hasher,
    fingerprints,
    rate: setup.rate,
    onReadError: setup.onReadError,
    room: new SpoolRoom(setup.room),
    depth: Math.min(setup.depth, to.depth),
  });
}

function opened(): DeviceSource {
  if (source === undefined) throw new Error('the source is not open');
  return source;
}

function connected(): Transfer {
  if (transfer === undefined) throw new Error('the target is not open');
  return transfer;
}

/** Only units that lie wholly in the zero extent are known to be zero. */
function markWholeUnits(offset: number, length: number): void {
  const end = Math.min(offset + length, setup.deviceSize);
  const first = Math.ceil(offset / fingerprintUnit) * fingerprintUnit;
  const last = end === setup.deviceSize ? end : Math.floor(end / fingerprintUnit) * fingerprintUnit;
  if (last > first) targetZero.mark(first, last - first);
}

let queue: Promise<void> = Promise.resolve();

port.on('message', (request: ThreadRequest) => {
  if (request.call === 'abort') {
    aborting.abort();
    target?.destroy();
    return;
  }
  queue = queue.then(async () => {
    port.postMessage(await answer(request));
    if (request.call === 'close') port.close();
  });
});

async function answer(request: Exclude<ThreadRequest, { call: 'abort' }>): Promise<ThreadReply> {
  try {
    const handler = handlers[request.call] as (args: unknown) => Promise<unknown>;
    return { id: request.id, result: await handler(request.args) };
  } catch (error) {
    return { id: request.id, error: toAgentError(error).toDocument() };
  }
}
