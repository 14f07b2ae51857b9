/**
 * A Ceph cluster for one test file: monitor, OSD and S3 gateways (radosgw) on loopback, in a temporary
 * folder, removed at the end of the test. Needs the Debian packages ceph-mon, ceph-osd, radosgw and
 * ceph-common; for RBD by qemu-nbd also qemu-block-extra.
 *
 *     const ceph = await startCeph({ after });          // at a file's top: one cluster for all its tests
 *     const gateway = await ceph.startGateway();        // gateway.endpoint; ceph.makeUser()
 *     await ceph.makeImage('rbd', 'img', 256 * MiB);    // ceph.conf is CEPH_CONF
 *
 * There is no manager daemon, so `ceph osd df` and `ceph pg stat` hang, and health is a warning.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MiB } from '../../src/base/bytes.ts';
import { cephConfiguration, cephKeyring } from './ceph-configuration.ts';
import { atEnd, type EndingTest } from './cleanup.ts';
import { exec, type ExecOptions, type ExecResult } from './exec.ts';
import { accepts, endProcess, freePort, isAlive, waitFor } from './nbd-process.ts';

export interface CephUser {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
}

export interface CephDaemon {
  readonly pid: number;
  /** Sends a signal. After SIGKILL and SIGTERM it resolves when the daemon has ended. */
  signal(name: 'SIGSTOP' | 'SIGCONT' | 'SIGKILL' | 'SIGTERM'): Promise<void>;
  /** Starts the daemon again after its end, on the same port. */
  start(): Promise<void>;
  /** Kills the daemon if it is running. */
  end(): Promise<void>;
}

export interface CephGateway extends CephDaemon {
  readonly endpoint: string;
  readonly port: number;
}

export interface GatewayOptions {
  /** PEM files. If given, the gateway uses https. */
  readonly tls?: { readonly certificate: string; readonly key: string };
}

export interface Ceph {
  /** Path of ceph.conf, for CEPH_CONF and `conf=`. */
  readonly conf: string;
  readonly directory: string;
  readonly osd: CephDaemon;
  /** Runs a tool with CEPH_CONF set. */
  run(program: string, args: readonly string[], options?: ExecOptions): Promise<ExecResult>;
  startGateway(options?: GatewayOptions): Promise<CephGateway>;
  /** Makes an S3 user with random keys; `quotaBytes` limits what it may store. */
  makeUser(quotaBytes?: number): Promise<CephUser>;
  /** Makes the pool if it is missing, and an image of `size` bytes in it. */
  makeImage(pool: string, image: string, size: number): Promise<void>;
  /** Returns the address of an image for qemu: `rbd:POOL/IMAGE[@SNAPSHOT]:…`. */
  qemuAddress(pool: string, image: string, snapshot?: string): string;
}

/** Milliseconds that a daemon may take to start on a busy machine. */
const START_MS = 90_000;

/** Starts monitor and OSD; everything is removed at the end of `t`, or when a signal ends the tests. */
export async function startCeph(t: EndingTest): Promise<Ceph> {
  // The path has to be short, because Unix sockets lie in it.
  const directory = await mkdtemp(join(tmpdir(), 'ceph-'));
  const daemons: Daemon[] = [];
  atEnd(t, async () => {
    for (const daemon of daemons.reverse()) await daemon.end();
    await rm(directory, { recursive: true, force: true, maxRetries: 5 });
  });
  return ClusterOfOne.start(directory, daemons);
}

class ClusterOfOne implements Ceph {
  readonly conf: string;
  readonly directory: string;
  readonly #daemons: Daemon[];
  readonly #pools = new Set<string>();

  private constructor(directory: string, daemons: Daemon[]) {
    this.directory = directory;
    this.conf = join(directory, 'ceph.conf');
    this.#daemons = daemons;
  }

  static async start(directory: string, daemons: Daemon[]): Promise<ClusterOfOne> {
    const cluster = new ClusterOfOne(directory, daemons);
    const fsid = randomUUID();
    const ports = { v2: await freePort(), v1: await freePort() };
    for (const name of ['mon', 'osd', 'rgw', 'run', 'log', 'crash']) await mkdir(join(directory, name));
    await writeFile(cluster.conf, cephConfiguration(directory, fsid, ports));
    const keyring = join(directory, 'keyring');
    await writeFile(keyring, cephKeyring(), { mode: 0o600 });
    const map = join(directory, 'monmap');
    const monitor = `[v2:127.0.0.1:${ports.v2},v1:127.0.0.1:${ports.v1}]`;
    await cluster.run('monmaptool', ['--create', '--fsid', fsid, '--addv', 'a', monitor, map]);
    await cluster.run('ceph-mon', ['-i', 'a', '--mkfs', '--monmap', map, '--keyring', keyring]);
    await cluster.#startDaemon('ceph-mon', ['-i', 'a']);
    const uuid = randomUUID();
    await cluster.run('ceph', ['--connect-timeout', '60', 'osd', 'new', uuid, '0'], { timeoutMs: START_MS });
    await cluster.run('ceph-osd', ['-i', '0', '--mkfs', '--osd-uuid', uuid]);
    await cluster.#startDaemon('ceph-osd', ['-i', '0']);
    await waitFor(
      async () => (await cluster.run('ceph', ['osd', 'stat'])).stdout.includes('1 up'),
      'OSD',
      START_MS,
    );
    return cluster;
  }

  get osd(): CephDaemon {
    return this.#daemons[1]!;
  }

  run(program: string, args: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
    return exec(program, args, { ...options, env: { ...options.env, CEPH_CONF: this.conf } });
  }

  async startGateway(options: GatewayOptions = {}): Promise<CephGateway> {
    const port = await freePort();
    const { tls } = options;
    const where =
      tls === undefined
        ? `endpoint=127.0.0.1:${port}`
        : `ssl_endpoint=127.0.0.1:${port} ssl_certificate=${tls.certificate} ssl_private_key=${tls.key}`;
    // Without tcp_nodelay every small answer waits 40 ms for an acknowledgement.
    const frontend = `--rgw-frontends=beast ${where} tcp_nodelay=1`;
    const gateway = await this.#startDaemon('radosgw', ['-n', 'client.rgw.a', frontend], () => accepts(port));
    return Object.assign(gateway, {
      port,
      endpoint: `${tls === undefined ? 'http' : 'https'}://127.0.0.1:${port}`,
    });
  }

  async makeUser(quotaBytes?: number): Promise<CephUser> {
    const name = `u${randomBytes(6).toString('hex')}`;
    const user = {
      accessKeyId: randomBytes(10).toString('hex').toUpperCase(),
      secretAccessKey: randomBytes(20).toString('hex'),
    };
    await this.run('radosgw-admin', [
      ...['user', 'create', `--uid=${name}`, `--display-name=${name}`],
      ...[`--access-key=${user.accessKeyId}`, `--secret-key=${user.secretAccessKey}`],
    ]);
    if (quotaBytes !== undefined) {
      const quota = ['--quota-scope=user', `--uid=${name}`];
      await this.run('radosgw-admin', ['quota', 'set', ...quota, `--max-size=${quotaBytes}`]);
      await this.run('radosgw-admin', ['quota', 'enable', ...quota]);
    }
    return user;
  }

  async makeImage(pool: string, image: string, size: number): Promise<void> {
    if (!this.#pools.has(pool)) {
      await this.run('ceph', ['osd', 'pool', 'create', pool, '8']);
      await this.run('rbd', ['pool', 'init', pool]);
      this.#pools.add(pool);
    }
    await this.run('rbd', ['create', '--size', `${Math.ceil(size / MiB)}M`, `${pool}/${image}`]);
  }

  qemuAddress(pool: string, image: string, snapshot?: string): string {
    return `rbd:${pool}/${image}${snapshot === undefined ? '' : `@${snapshot}`}:id=admin:conf=${this.conf}`;
  }

  async #startDaemon(
    program: string,
    args: readonly string[],
    ready?: () => Promise<boolean>,
  ): Promise<Daemon> {
    const daemon = new Daemon(program, ['-f', '-c', this.conf, ...args], join(this.directory, 'log'), ready);
    this.#daemons.push(daemon);
    await daemon.start();
    return daemon;
  }
}

class Daemon implements CephDaemon {
  readonly #program: string;
  readonly #args: readonly string[];
  readonly #logs: string;
  readonly #ready: (() => Promise<boolean>) | undefined;
  #child: ChildProcess | undefined;

  constructor(
    program: string,
    args: readonly string[],
    logs: string,
    ready: (() => Promise<boolean>) | undefined,
  ) {
    this.#program = program;
    this.#args = args;
    this.#logs = logs;
    this.#ready = ready;
  }

  get pid(): number {
    const pid = this.#child?.pid;
    if (pid === undefined) throw new Error(`${this.#program} does not run`);
    return pid;
  }

  /** Starts the daemon in the foreground. It is killed with the test process, however that process ends. */
  async start(): Promise<void> {
    let said = '';
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', this.#program, ...this.#args], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    this.#child = child;
    child.stderr.on('data', (chunk: Buffer) => (said = (said + chunk.toString()).slice(-4000)));
    if (this.#ready === undefined) return;
    const ready = this.#ready;
    await waitFor(
      async () => {
        if (child.exitCode !== null || child.signalCode !== null)
          throw new Error(
            `${this.#program} ended (${child.exitCode ?? child.signalCode}): ${said}${await this.#log()}`,
          );
        return ready();
      },
      `${this.#program} ready`,
      START_MS,
    );
  }

  async signal(name: 'SIGSTOP' | 'SIGCONT' | 'SIGKILL' | 'SIGTERM'): Promise<void> {
    const { pid } = this;
    process.kill(pid, name);
    if (name === 'SIGKILL' || name === 'SIGTERM')
      await waitFor(() => !isAlive(pid), `end of ${this.#program}`, 30_000);
  }

  async end(): Promise<void> {
    const pid = this.#child?.pid;
    if (pid === undefined || !isAlive(pid)) return;
    process.kill(pid, 'SIGCONT');
    // Its data is no longer needed.
    await endProcess(pid, 'SIGKILL');
  }

  async #log(): Promise<string> {
    const { stdout } = await exec('sh', ['-c', `tail -qn 20 ${this.#logs}/*`], { allow: [1] });
    return `\n${stdout}`;
  }
}
