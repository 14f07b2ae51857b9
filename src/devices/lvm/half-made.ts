/**
 * Repairs a thin snapshot whose lvcreate was killed after the pool had made it, but before the pool had counted the
 * transaction. lvm2 then continues from its metadata and asks the pool to make the snapshot again. The pool answers
 * that the snapshot exists, and lvm2 changes nothing of the pool any more ("manual intervention may be required"). So
 * we make the pool forget the snapshot. Then lvm2 can make it and remove it.
 * (Messages and transaction ids: the kernel's Documentation/admin-guide/device-mapper/thin-provisioning.rst.)
 */
import { findProgram, runProgram } from '../../linux/program.ts';
import { dmStatus, dmUuidOf, listVolumes, lvm, type Volume } from './volumes.ts';

/** `snapshot` is one of ours, to be removed. Returns true if it was half made and the pool has forgotten it. */
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

/** `status`: the pool's status line from device-mapper. `wanted`: the transaction id in the metadata of lvm2. */
export function isHalfMade(status: string, wanted: number | undefined): boolean {
  const counted = /^\d+ \d+ thin-pool (\d+) /.exec(status)?.[1];
  return counted !== undefined && wanted === Number(counted) + 1;
}

async function askNumber({ group, name }: Volume, column: string): Promise<number | undefined> {
  const { code, stdout } = await lvm(['lvs', '--noheadings', '--options', column, `${group}/${name}`]);
  return code === 0 && /^\s*\d+\s*$/.test(stdout) ? Number(stdout) : undefined;
}
