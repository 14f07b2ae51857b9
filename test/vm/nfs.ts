/**
 * An NFS server in the guest's kernel and two clients of it, without Debian's packages. Exports are written
 * to the kernel's caches like rpc.mountd does (fs/nfsd/export.c, net/sunrpc/svcauth_unix.c). The mounts'
 * options are those that mount.nfs would pass. Only NFSv4, which needs no other service.
 *
 * The second client has its own network and host name. So it is another machine to the server, and it shares
 * no cache with the first.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { sh } from './guest.ts';

const addresses = { first: '127.0.0.1', second: '10.99.0.2' } as const;
const serverOf = { first: '127.0.0.1', second: '10.99.0.1' } as const;
export type NfsClient = keyof typeof addresses;

/**
 * Flags of an export (include/uapi/linux/nfsd/export.h): any port, no subtree check, has an fsid. Also sync,
 * and root stays root.
 */
const exportFlags = 0x2 | 0x400 | 0x2000;

/** Exports a directory, read and write, to both clients, as the root of the server. */
export async function startNfsServer(directory: string): Promise<void> {
  const portmapper = await startPortmapper();
  sh(`for m in nfsd nfs nfsv4 veth; do modprobe $m; done
mountpoint -q /proc/fs/nfsd || mount -t nfsd nfsd /proc/fs/nfsd
ip netns add client2
ip link add nfs0 type veth peer name nfs1
ip link set nfs1 netns client2
ip addr add 10.99.0.1/24 dev nfs0; ip link set nfs0 up
ip netns exec client2 ip addr add 10.99.0.2/24 dev nfs1
ip netns exec client2 ip link set nfs1 up
ip netns exec client2 ip link set lo up`);
  const nfsd = '/proc/fs/nfsd';
  for (const version of ['-2', '-3', '+4', '+4.1', '+4.2'])
    try {
      writeFileSync(`${nfsd}/versions`, `${version}\n`);
    } catch {
      // A kernel without version 2 cannot turn it off.
    }
  for (const file of ['nfsv4leasetime', 'nfsv4gracetime']) writeFileSync(`${nfsd}/${file}`, '10');
  // The kernel asks the portmapper here, so this process must be able to answer.
  await writeFile(`${nfsd}/portlist`, 'tcp 2049');
  const rpc = '/proc/net/rpc';
  const never = 0x7fff_ffff;
  for (const address of Object.values(addresses))
    writeFileSync(`${rpc}/auth.unix.ip/channel`, `nfsd ${address} ${never} testers\n`);
  writeFileSync(`${rpc}/nfsd.export/channel`, `testers ${directory} ${never} ${exportFlags} 65534 65534 0\n`);
  writeFileSync(`${rpc}/nfsd.fh/channel`, String.raw`testers 1 \x00000000 ${never} ${directory}` + '\n');
  await writeFile(`${nfsd}/threads`, '4');
  portmapper.close();
  try {
    writeFileSync(`${nfsd}/v4_end_grace`, 'Y');
  } catch {
    // There is no grace period if nothing can be reclaimed.
  }
  console.log(`# nfsd: ${readFileSync(`${nfsd}/versions`, 'utf8').trim()}`);
}

/** Mounts the server's root; `options` as for mount.nfs. */
export function mountNfs(client: NfsClient, directory: string, options: string): void {
  mkdirSync(directory, { recursive: true });
  const all = [
    'vers=4.2',
    `addr=${serverOf[client]}`,
    `clientaddr=${addresses[client]}`,
    'nosharecache',
    options,
  ];
  const mount = `mount -i -t nfs4 -o ${all.filter((each) => each !== '').join(',')} ${serverOf[client]}:/ ${directory}`;
  if (client === 'first') sh(mount);
  else sh(`nsenter --net=/run/netns/client2 unshare --uts sh -c 'hostname client2; ${mount}'`);
}

export function stopNfs(mounts: readonly string[]): void {
  for (const each of mounts) sh(`umount ${each} || umount -l ${each}`);
  writeFileSync('/proc/fs/nfsd/threads', '0');
}

/**
 * Starts a portmapper that accepts all registrations, and gets no queries: RFC 5531, and RFC 1833 for the
 * result of a call.
 */
function startPortmapper(): Promise<Server> {
  const server = createServer((socket) => {
    let read = Buffer.alloc(0);
    socket.on('error', () => undefined);
    socket.on('data', (data: Buffer) => {
      read = Buffer.concat([read, data]);
      while (read.length >= 8) {
        const length = read.readUInt32BE(0) & 0x7fff_ffff;
        if (read.length < 4 + length) return;
        // A reply, accepted, no verifier, success, true.
        const words = [0x8000_001c, read.readUInt32BE(4), 1, 0, 0, 0, 0, 1];
        const reply = Buffer.alloc(words.length * 4);
        words.forEach((word, at) => reply.writeUInt32BE(word, at * 4));
        socket.write(reply);
        read = read.subarray(4 + length);
      }
    });
    socket.unref();
  });
  server.unref();
  return new Promise((resolve) => server.listen(111, '127.0.0.1', () => resolve(server)));
}
