/**
 * Returns ceph.conf and the keys of a cluster of one machine (see ceph.ts). All paths are in its folder, and
 * there is one copy of everything.
 */
import { randomBytes } from 'node:crypto';

export function cephConfiguration(
  directory: string,
  fsid: string,
  ports: { readonly v1: number; readonly v2: number },
): string {
  // A range of ports for the OSD, which takes free ones from it.
  const low = 20_000 + (randomBytes(2).readUInt16LE() % 300) * 40;
  return `[global]
fsid = ${fsid}
mon initial members = a
mon host = [v2:127.0.0.1:${ports.v2}/0,v1:127.0.0.1:${ports.v1}/0]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
ms bind port min = ${low}
ms bind port max = ${low + 79}
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = ${directory}/keyring
run dir = ${directory}/run
admin socket = ${directory}/run/$name.$pid.asok
pid file =
log file = ${directory}/log/$name.log
crash dir = ${directory}/crash
log to stderr = false
err to stderr = false
mon cluster log to file = false
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon allow pool delete = true
mon warn on pool no redundancy = false
auth allow insecure global id reclaim = false
mon data avail warn = 2
mon data avail crit = 1
mon osd full ratio = 0.97
mon max pg per osd = 1000

[mon]
mon data = ${directory}/mon
# Every new pool waits for this, a second by default.
paxos propose interval = 0.1

[osd]
osd data = ${directory}/osd
osd objectstore = bluestore
osd memory target = 1073741824
bluestore block size = 8589934592
osd class load list = *
osd class default list = *

[client.rgw.a]
rgw data = ${directory}/rgw
rgw thread pool size = 64
rgw enable apis = s3, admin
`;
}

export function cephKeyring(): string {
  const all = ['mon', 'osd', 'mds', 'mgr'].map((what) => `caps ${what} = "allow *"`);
  return [
    '[mon.]',
    `key = ${cephKey()}`,
    'caps mon = "allow *"',
    '[client.admin]',
    `key = ${cephKey()}`,
    ...all,
    '[osd.0]',
    `key = ${cephKey()}`,
    'caps mon = "allow profile osd"',
    'caps osd = "allow *"',
    'caps mgr = "allow profile osd"',
    '[client.rgw.a]',
    `key = ${cephKey()}`,
    'caps mon = "allow rw"',
    'caps osd = "allow rwx"',
    'caps mgr = "allow rw"',
    '',
  ].join('\n');
}

/** Returns a key like those of ceph-authtool: type 1 (AES), time, length 16, sixteen random bytes. */
function cephKey(): string {
  const head = Buffer.alloc(12);
  head.writeUInt16LE(1, 0);
  head.writeUInt32LE(Math.floor(Date.now() / 1000), 2);
  head.writeUInt16LE(16, 10);
  return Buffer.concat([head, randomBytes(16)]).toString('base64');
}
