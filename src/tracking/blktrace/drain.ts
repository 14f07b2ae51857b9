/**
 * Drains all traces once. Every stream is read on its own processor, so the thread moves through all processors.
 * Streams of processors that came online in the meantime are read too.
 */
import { type DiskReader, TraceLost } from './disk-reader.ts';

export interface Processors {
  online(): readonly number[];
  /** Returns false if this thread may not run there. */
  moveTo(processor: number): boolean;
  /** Lets the thread run anywhere again. */
  release(): void;
}

export interface Drained {
  /** Nanoseconds: all writes up to this time are in the maps. */
  readonly time: number;
  /** Bytes that the fullest stream held. */
  readonly most: number;
}

const mostRounds = 5;

/** Returns a result for each reader: how far it read, or why its trace is lost. */
export function drain<Reader extends DiskReader>(
  readers: readonly Reader[],
  processors: Processors,
  buffer: Buffer,
): Map<Reader, Drained | TraceLost> {
  const results = new Map<Reader, Drained | TraceLost>();
  let left = [...readers];
  try {
    for (let round = 1; left.length > 0; round++) {
      const before = processors.online();
      const state = pass(left, before, processors, buffer, results);
      const same = String(processors.online()) === String(before);
      for (const [reader, most] of state) {
        if (same) attempt(results, reader, () => results.set(reader, { time: reader.finish(), most }));
        else if (round === mostRounds)
          results.set(
            reader,
            new TraceLost('processors come and go too quickly for their traces to be read'),
          );
      }
      if (same) break;
      left = left.filter((reader) => !results.has(reader));
    }
  } finally {
    processors.release();
  }
  return results;
}

/** Reads all streams once. Returns the readers that did not fail, with the bytes of their fullest stream. */
function pass<Reader extends DiskReader>(
  readers: readonly Reader[],
  online: readonly number[],
  processors: Processors,
  buffer: Buffer,
  results: Map<Reader, Drained | TraceLost>,
): Map<Reader, number> {
  const state = new Map<Reader, number>();
  const beaten = new Set<Reader>();
  for (const reader of readers) if (attempt(results, reader, () => reader.openNew())) state.set(reader, 0);
  // No process writes into the streams of offline processors, so they can be read from any processor.
  const all = new Set([...online, ...readers.flatMap((reader) => [...reader.files.processors])]);
  for (const processor of all) {
    const there = processors.moveTo(processor);
    for (const reader of [...state.keys()]) {
      const fine = attempt(results, reader, () => {
        const known = reader.files.processors.includes(processor);
        if (!there && online.includes(processor) && processors.online().includes(processor))
          throw new TraceLost(`dattod may not run on processor ${processor}, whose writes it has to read`);
        if (there && !beaten.has(reader)) {
          reader.beat();
          beaten.add(reader);
        }
        if (known) state.set(reader, Math.max(state.get(reader)!, reader.read(processor, buffer)));
      });
      if (!fine) state.delete(reader);
    }
  }
  return state;
}

/** Runs `work`. Returns false if it threw a TraceLost, which is then the reader's result. */
function attempt<Reader>(
  results: Map<Reader, Drained | TraceLost>,
  reader: Reader,
  work: () => void,
): boolean {
  try {
    work();
    return true;
  } catch (thrown) {
    if (!(thrown instanceof TraceLost)) throw thrown;
    results.set(reader, thrown);
    return false;
  }
}
