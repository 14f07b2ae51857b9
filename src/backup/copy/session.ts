/**
 * The work of a copying thread for one device of one job: one source, and one connection to the target. It closes
 * everything that it opens, since the thread may serve another job afterwards (thread.ts).
 */
import { Bitmap } from '../../base/bitmap.ts';
import { alignUp } from '../../base/bytes.ts';
import { AgentError } from '../../base/errors.ts';
import type { CallHandlers } from '../../base/thread-calls.ts';
import { withRaisedPriority } from '../../base/thread-priority.ts';
import { type DeviceSource, openDeviceSource } from '../../block/device-source.ts';
import { type CommittingTarget, isCommitting, type Target } from '../../block/target.ts';
import { KeptMap, type KeptReading, ungrouped } from '../../filesystems/kept-map.ts';
import { markUsed } from '../../filesystems/mark-used.ts';
import type { ReadUsedMapOptions } from '../../filesystems/read-used-map.ts';
import { Control } from './control.ts';
import { FingerprintFile, UnitHasher, fingerprintUnit } from '../../tracking/fingerprints.ts';
import {
  type CopyCalls,
  type CopyProtocol,
  type TargetFacts,
  type ThreadSetup,
  isUrgent,
} from './messages.ts';
import { Samples } from './samples.ts';
import { Manners } from './manners.ts';
import { SpoolRoom } from './spool-room.ts';
import { wholeUnits } from '../../tracking/bitmap-units.ts';
import { CopyLoop } from './copy-loop.ts';
import { WitnessTaker } from './witnesses.ts';
import { openTarget } from './targets.ts';

export class CopySession {
  readonly #setup: ThreadSetup;
  readonly #control: Control;
  readonly #items: Float64Array;
  readonly #send: Bitmap;
  readonly #unconfirmed: Bitmap;
  readonly #stashed: Bitmap;
  readonly #found: Bitmap;
  readonly #targetZero: Bitmap;
  readonly #samples: Samples;
  readonly #hasher: UnitHasher;
  readonly #witnesses: WitnessTaker;
  readonly #manners: Manners | undefined;
  readonly #aborting = new AbortController();
  #source: DeviceSource | undefined;
  #target: Target | undefined;
  #copyLoop: CopyLoop | undefined;
  #fingerprints: FingerprintFile | undefined;
  /** The reading of the allocation map that the next reading may build on. */
  #earlier: { readonly map: KeptMap; readonly reading: number } | undefined;

  constructor(setup: ThreadSetup) {
    this.#setup = setup;
    this.#control = new Control(setup.threads, setup.control);
    this.#items = new Float64Array(setup.items);
    this.#send = new Bitmap(setup.deviceSize, setup.unit, setup.send);
    this.#unconfirmed = new Bitmap(setup.deviceSize, setup.unit, setup.unconfirmed);
    this.#stashed = new Bitmap(setup.deviceSize, setup.unit, setup.stashed);
    this.#found = new Bitmap(setup.deviceSize, fingerprintUnit, setup.found);
    this.#targetZero = new Bitmap(setup.deviceSize, fingerprintUnit, setup.targetZero);
    this.#samples = new Samples(setup.samples);
    this.#hasher = new UnitHasher(Buffer.from(setup.key));
    this.#witnesses = new WitnessTaker(this.#hasher, setup.threads);
    this.#manners = setup.impact === undefined ? undefined : new Manners(setup.impact, this.#control);
  }

  /** Breaks the connection to the target, so that every call that waits for it ends. */
  abort(): void {
    this.#aborting.abort();
    this.#target?.destroy();
  }

  /** The calls of the coordinator. It waits for one before it makes the next. */
  readonly calls: CallHandlers<CopyProtocol> = {
    open: async ({ waitMs }) => {
      this.#source ??= await this.#openSource(this.#setup.sourcePath);
      return this.#connect(waitMs);
    },
    useSource: async ({ path }) => {
      const before = this.#source;
      this.#source = await this.#openSource(path);
      await before?.close();
      this.#copyLoop = this.#makeCopyLoop(this.#connected().target);
      return undefined;
    },
    reopenTarget: ({ waitMs }) => {
      // The state of data that no flush has confirmed is unknown, so its witnesses are dropped.
      this.#witnesses.take();
      return this.#connect(waitMs);
    },
    map: async (args) => {
      const start = performance.now();
      const outcome = await (args.state === 'frozen'
        ? withRaisedPriority(() => this.#readMap(args))
        : this.#readMap(args));
      return { ...outcome, ms: performance.now() - start };
    },
    zeroMap: async ({ used }) => {
      const to = this.#connected().target;
      for (const { offset, length } of wholeUnits(new Bitmap(this.#setup.deviceSize, this.#setup.unit, used)))
        // The device may end within a block of the target.
        for await (const zero of to.zeroExtents(offset, alignUp(length, to.minimumBlock)))
          this.#markWholeUnits(zero.offset, zero.length);
      return undefined;
    },
    measure: ({ first, count }) => this.#connected().measure(first, count),
    run: (args) => {
      const pass = () => this.#connected().run(args);
      if (isUrgent(args.mode)) return withRaisedPriority(pass);
      return args.considerate && this.#manners !== undefined ? this.#manners.during(pass) : pass();
    },
    spoolLacks: () => Promise.resolve(this.#connected().spoolLacks()),
    spoolHolds: () => Promise.resolve(this.#connected().spoolHolds()),
    sendSpool: async () => {
      await this.#connected().sendSpool();
      return undefined;
    },
    dropSpool: () => {
      this.#connected().dropSpool();
      return Promise.resolve(undefined);
    },
    flush: async () => {
      await this.#connected().target.flush();
      return undefined;
    },
    trim: ({ freed }) => this.#connected().trim(new Bitmap(this.#setup.deviceSize, this.#setup.unit, freed)),
    checkSamples: () => this.#connected().checkSamples(),
    takeWitnesses: () => Promise.resolve(this.#witnesses.take()),
    compare: ({ places }) => this.#connected().compare(places),
    discardBase: () => {
      const { target } = this.#connected();
      if (isCommitting(target)) target.discardBase();
      return Promise.resolve(undefined);
    },
    seal: () => this.#committing().seal(),
    buildMap: ({ touched, used }) =>
      this.#committing().buildMap(
        new Bitmap(this.#setup.deviceSize, this.#setup.unit, touched),
        new Bitmap(this.#setup.deviceSize, this.#setup.unit, used),
      ),
    close: async () => {
      this.#copyLoop?.dropSpool();
      this.#fingerprints?.close();
      await this.#target?.close();
      await this.#source?.close();
      return undefined;
    },
  };

  async #readMap({ state, used, kept }: CopyCalls['map']['args']): Promise<KeptReading> {
    const from = this.#opened();
    const readAt = (offset: number, length: number): Promise<Uint8Array> => from.readAt(offset, length);
    const options: ReadUsedMapOptions = {
      state,
      partitionStates: new Map(this.#setup.livePartitions.map((start) => [start, state])),
      expected: this.#setup.expected?.whole,
      partitionsExpected: new Map(this.#setup.expected?.partitions),
      signal: this.#aborting.signal,
    };
    const bitmap = new Bitmap(this.#setup.deviceSize, this.#setup.unit, used);
    const before = this.#earlier;
    this.#earlier = undefined;
    if (kept === undefined)
      return {
        ...(await markUsed(bitmap, readAt, this.#setup.deviceSize, from.sectorSize, options)),
        ...ungrouped,
      };
    const map = before?.reading === kept.reading - 1 ? before.map : new KeptMap(bitmap);
    const written = kept.written && new Bitmap(this.#setup.deviceSize, kept.written.unit, kept.written.bits);
    const outcome = await map.read(readAt, from.sectorSize, options, written);
    this.#earlier = { map, reading: kept.reading };
    return outcome;
  }

  async #connect(waitMs: number): Promise<TargetFacts> {
    this.#target?.destroy();
    this.#target = await openTarget(this.#setup.target, {
      waitMs,
      first: this.#setup.thread === 0,
      access: this.#setup.access,
      signal: this.#aborting.signal,
      deviceSize: this.#setup.deviceSize,
    });
    if (this.#copyLoop !== undefined) this.#copyLoop.useTarget(this.#target);
    else this.#copyLoop = this.#makeCopyLoop(this.#target);
    const { name, size, readOnly, abilities, minimumBlock } = this.#target;
    return { name, size, readOnly, abilities, minimumBlock };
  }

  async #openSource(path: string): Promise<DeviceSource> {
    const opening = await openDeviceSource(path);
    const { size } = opening;
    if (size === this.#setup.deviceSize) return opening;
    await opening.close();
    throw new AgentError(
      'DEVICE_GONE',
      `${path} has ${size} bytes now, and had ${this.#setup.deviceSize} when the job began`,
      { hint: 'start the job again' },
    );
  }

  #makeCopyLoop(to: Target): CopyLoop {
    if (this.#setup.fingerprintPath !== undefined)
      this.#fingerprints ??= new FingerprintFile(this.#setup.fingerprintPath);
    return new CopyLoop(to, {
      thread: this.#setup.thread,
      source: this.#manners?.source(this.#opened()) ?? this.#opened(),
      manners: this.#manners,
      control: this.#control,
      items: this.#items,
      send: this.#send,
      unconfirmed: this.#unconfirmed,
      stashed: this.#stashed,
      found: this.#found,
      targetZero: this.#targetZero,
      samples: this.#samples,
      witnesses: this.#witnesses,
      hasher: this.#hasher,
      fingerprints: this.#fingerprints,
      rate: this.#setup.rate,
      onReadError: this.#setup.onReadError,
      room: new SpoolRoom(this.#setup.room),
      depth: Math.min(this.#setup.depth, to.depth),
    });
  }

  #opened(): DeviceSource {
    if (this.#source === undefined) throw new Error('the source is not open');
    return this.#source;
  }

  #connected(): CopyLoop {
    if (this.#copyLoop === undefined) throw new Error('the target is not open');
    return this.#copyLoop;
  }

  #committing(): CommittingTarget {
    const { target } = this.#connected();
    if (!isCommitting(target)) throw new Error(`${target.name} has no images to commit`);
    return target;
  }

  /** Marks only units that lie wholly in the zero extent: only these are known to be zero. */
  #markWholeUnits(offset: number, length: number): void {
    const end = Math.min(offset + length, this.#setup.deviceSize);
    const first = Math.ceil(offset / fingerprintUnit) * fingerprintUnit;
    const last = end === this.#setup.deviceSize ? end : Math.floor(end / fingerprintUnit) * fingerprintUnit;
    if (last > first) this.#targetZero.mark(first, last - first);
  }
}
