/** Sources that fail if a test requests it. */
import type { Extent } from '../../src/base/extents.ts';
import { readFailure } from '../../src/block/read-errors.ts';
import type { Source } from '../../src/block/source.ts';

export interface SourceFaults {
  /** Reads that touch these extents fail with DEVICE_READ_ERROR, like reads of bad sectors. */
  readonly bad?: readonly Extent[];
  /** Reads after this many fail with DEVICE_GONE. */
  readonly goneAfter?: number;
}

/** Returns a source over `inner` that reads like a damaged disk. */
export function faultySource(inner: Source, faults: SourceFaults): Source {
  let count = 0;
  return {
    name: inner.name,
    size: inner.size,
    sectorSize: inner.sectorSize,
    readAt: async (offset, length) => {
      if (count++ >= (faults.goneAfter ?? Infinity)) throw injected(inner.name, offset, length, 'ENXIO');
      if (
        faults.bad?.some((bad) => bad.offset < offset + length && offset < bad.offset + bad.length) === true
      )
        throw injected(inner.name, offset, length, 'EIO');
      return inner.readAt(offset, length);
    },
    close: () => inner.close(),
  };
}

/** Returns the error that the kernel's own error would become. */
function injected(name: string, offset: number, length: number, code: string): unknown {
  return readFailure(name, offset, length, Object.assign(new Error(`injected ${code}`), { code }));
}
