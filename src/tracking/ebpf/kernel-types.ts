/**
 * Offsets in the running kernel of the fields that the programs read, from its BTF. Fields move and change their names
 * between versions (seen: 5.10, 6.1, 6.12). Computed from the BTF alone.
 */
import { AgentError } from '../../base/errors.ts';
import type { Btf } from '../../linux/bpf/btf.ts';

/** Offsets in bytes. */
export interface KernelTypes {
  /** Path from a bio to its gendisk: through its block device (since 5.12), or directly. */
  readonly bioToDisk: readonly number[];
  /** Path from a request to its gendisk: through its queue (since 5.15), or directly. */
  readonly requestToDisk: readonly number[];
  readonly diskMajor: number;
  readonly diskMinor: number;
  readonly bioFlags: number;
  readonly bioSector: number;
  readonly bioSize: number;
  readonly bioNext: number;
  /** A bio that was split off points to the remaining bio by this field. */
  readonly bioPrivate: number;
  readonly requestBio: number;
  readonly requestFlags: number;
  readonly requestSector: number;
  /** Bytes that have not completed yet, u32. */
  readonly requestLength: number;
  readonly operations: {
    readonly discard: number;
    readonly zoneAppend: number | undefined;
    readonly zoneResets: readonly number[];
  };
  readonly tracepoints: Readonly<Record<TracepointName, Tracepoint>>;
}

export type TracepointName =
  'block_rq_issue' | 'block_rq_complete' | 'block_bio_queue' | 'block_bio_complete';

export interface Tracepoint {
  readonly name: TracepointName;
  /** BTF ID of its type. */
  readonly id: number;
  /** Offset of the request or bio among the program's arguments. */
  readonly argument: number;
}

/** Throws NOT_SUPPORTED, and names the missing type or field. */
export function readKernelTypes(btf: Btf): KernelTypes {
  const at = (struct: string, ...paths: string[]): number => {
    for (const path of paths) {
      const place = btf.field(struct, path);
      if (place !== undefined) return place.offset;
    }
    throw missing(`${struct}.${paths.join(' or ')}`);
  };
  const has = (struct: string, path: string): boolean => btf.field(struct, path) !== undefined;
  const operation = (name: string): number | undefined =>
    btf.enumerator('req_op', name) ?? btf.enumerator('req_opf', name);
  const tracepoint = (name: TracepointName, argument: string): Tracepoint => {
    const found = btf.tracepoint(name);
    const index = found?.parameters.indexOf(argument) ?? -1;
    if (found === undefined || index < 0) throw missing(`tracepoint ${name} with a ${argument}`);
    return { name, id: found.id, argument: index * 8 };
  };
  const discard = operation('REQ_OP_DISCARD');
  if (discard === undefined) throw missing('REQ_OP_DISCARD');
  return {
    bioToDisk: has('bio', 'bi_bdev')
      ? [at('bio', 'bi_bdev'), at('block_device', 'bd_disk')]
      : [at('bio', 'bi_disk')],
    requestToDisk: has('request', 'rq_disk')
      ? [at('request', 'rq_disk')]
      : [at('request', 'q'), at('request_queue', 'disk')],
    diskMajor: at('gendisk', 'major'),
    diskMinor: at('gendisk', 'first_minor'),
    bioFlags: at('bio', 'bi_opf'),
    bioSector: at('bio', 'bi_iter.bi_sector'),
    bioSize: at('bio', 'bi_iter.bi_size'),
    bioNext: at('bio', 'bi_next'),
    bioPrivate: at('bio', 'bi_private'),
    requestBio: at('request', 'bio'),
    requestFlags: at('request', 'cmd_flags'),
    requestSector: at('request', '__sector'),
    requestLength: at('request', '__data_len'),
    operations: {
      discard,
      zoneAppend: operation('REQ_OP_ZONE_APPEND'),
      zoneResets: ['REQ_OP_ZONE_RESET', 'REQ_OP_ZONE_RESET_ALL']
        .map(operation)
        .filter((each) => each !== undefined),
    },
    tracepoints: {
      block_rq_issue: tracepoint('block_rq_issue', 'request'),
      block_rq_complete: tracepoint('block_rq_complete', 'request'),
      block_bio_queue: tracepoint('block_bio_queue', 'bio'),
      block_bio_complete: tracepoint('block_bio_complete', 'bio'),
    },
  };
}

function missing(what: string): AgentError {
  return new AgentError('NOT_SUPPORTED', `this kernel's type information (BTF) has no ${what}`, {
    hint: 'its writes cannot be tracked with eBPF; use another kernel, or --tracker none',
  });
}
