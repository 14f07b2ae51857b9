/** Returns the free blocks of an XFS image by xfs_db (Debian package xfsprogs). */
import type { Extent } from '../../src/base/extents.ts';
import { exec } from './exec.ts';

export interface XfsDbView {
  readonly blockSize: number;
  /** Free extents in bytes, sorted, not joined. They include the blocks on the free lists (AGFL). */
  readonly free: readonly Extent[];
  /** Bytes on all free lists. */
  readonly freeList: number;
  /** Highest number of levels of a free-space tree. */
  readonly levels: number;
}

/** Walks the trees with xfs_db's own reader. */
export async function xfsDb(image: string): Promise<XfsDbView> {
  const fields = async (...args: string[]): Promise<Map<string, string>> => {
    const { stdout } = await exec('xfs_db', ['-r', ...args.flatMap((arg) => ['-c', arg]), image]);
    return new Map([...stdout.matchAll(/^(\w+) = (\S+)$/gm)].map((match) => [match[1]!, match[2]!]));
  };
  const sb = await fields('sb 0', 'p blocksize agblocks agcount');
  const number = (name: string): number => Number(sb.get(name));
  const blockSize = number('blocksize');
  let freeList = 0;
  let levels = 0;
  for (let group = 0; group < number('agcount'); group++) {
    const agf = await fields(`agf ${group}`, 'p flcount bnolevel');
    freeList += Number(agf.get('flcount')) * blockSize;
    levels = Math.max(levels, Number(agf.get('bnolevel')));
  }
  const { stdout } = await exec('xfs_db', ['-r', '-c', 'freesp -d', image]);
  const free = [...stdout.matchAll(/^ +(\d+) +(\d+) +(\d+)$/gm)]
    .map((match) => match.slice(1).map(Number) as [number, number, number])
    .map(([group, block, count]) => ({
      offset: (group * number('agblocks') + block) * blockSize,
      length: count * blockSize,
    }))
    .sort((a, b) => a.offset - b.offset);
  return { blockSize, free, freeList, levels };
}
