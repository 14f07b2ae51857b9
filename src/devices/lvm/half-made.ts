/**
 * A thin snapshot whose lvcreate was killed right after the pool had made it and before that had been counted: lvm2 goes
 * on from its metadata, asks the pool for it once more, is told that it is there already, and then changes nothing of
 * the pool any more ("manual intervention may be required"). The pool forgets it, so that lvm2 can make it and remove it.
 * (Messages and transaction ids: the kernel's Documentation/admin-guide/device-mapper/thin-provisioning.rst.)
 */
import { findProgram, runProgram } from '../../linux/program.ts';
import { dmStatus, dmUuidOf, listVolumes, lvm, type Volume } from './volumes.ts';

/** `snapshot`: of ours, to be removed. True where it was half made, and the pool has forgotten it. */
export async function forgetHalfMade(snapshot: Volume): Promise<boolean> {
  const dmsetup = findProgram('dmsetup');
  if (snapshot.segmentType !== 'thin' || dmsetup === undefined) return false;
  const pool = (await listVolumes()).find(
    ({ name, groupUuid }) => name === snapshot.pool && groupUuid === snapshot.groupUuid,
  );
  if (pool === undefined) return false;
  const poolUuid = `${dmUuidOf(pool)}-tpool`;
  const id = await askNumber(snapshot, 'thin_id');
  const wanted = await askNumber(pool, 'transaction_id');
  if (id === undefined || !isHalfMade(await dmStatus(poolUuid), wanted)) return false;
  const message = ['message', '--uuid', poolUuid, '0', `delete ${id}`];
  return (await runProgram(dmsetup, message)).code === 0;
}

/** `status`: the pool's, of device-mapper. `wanted`: the transaction that lvm2 is at. */
export function isHalfMade(status: string, wanted: number | undefined): boolean {
  const counted = /^\d+ \d+ thin-pool (\d+) /.exec(status)?.[1];
  return counted !== undefined && wanted === Number(counted) + 1;
}

async function askNumber({ group, name }: Volume, column: string): Promise<number | undefined> {
  const { code, stdout } = await lvm(['lvs', '--noheadings', '--options', column, `${group}/${name}`]);
  return code === 0 && /^\s*\d+\s*$/.test(stdout) ? Number(stdout) : undefined;
}
