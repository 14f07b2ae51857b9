/**
 * A job that writes nothing. It reads back all content that the targets are known to hold, and compares it with the
 * fingerprints of their chains. If a target differs, its chain is no longer trusted, and the next backup to it is a
 * full one.
 */
import { AgentError } from '../../base/errors.ts';
import { Bitmap } from '../../base/bitmap.ts';
import { Chain } from '../../tracking/chain.ts';
import { fingerprintUnit } from '../../tracking/fingerprints.ts';
import { BackupJob } from '../run/backup-job.ts';
import { CopyPool } from '../copy/pool.ts';
import { SpoolRoom } from '../copy/spool-room.ts';
import type { DevicePair, JobEnvironment, JobOptions, PreparedJob } from '../job.ts';
import { driftSample, knownUnits } from '../ledger/known-content.ts';
import { chainSubject, chainsDirectory } from './open-chain.ts';
import { untrackedUnit } from './untracked-unit.ts';
import { together } from '../run/together.ts';
import { parseTarget, targetName } from '../copy/targets.ts';
import type { JobDevice } from '../device-backup.ts';
import { initialStatus } from '../initial-status.ts';

interface Verified extends JobDevice {
  readonly chain: Chain;
  /** The blocks that the target is known to hold. */
  readonly known: Bitmap;
}

/** Throws CHAIN_NOT_FOUND, and the errors of opening a target. */
export async function prepareVerification(
  request: {
    readonly uuid: string;
    readonly kind: 'verify';
    readonly pairs: readonly DevicePair[];
    readonly options: JobOptions;
    readonly signal: AbortSignal;
  },
  environment: JobEnvironment,
): Promise<PreparedJob> {
  const { uuid, kind, pairs, options, signal } = request;
  const targets: Verified[] = [];
  try {
    for (const pair of pairs) targets.push(await prepareOne(pair, options, environment, signal));
  } catch (error) {
    await Promise.all(targets.map((target) => target.discard()));
    throw error;
  }
  return new BackupJob({
    uuid,
    kind,
    devices: targets,
    environment,
    warnings: [],
    work: async (report) => {
      report.phase('verifying');
      await together(targets, verifyOne);
      const [wrong] = targets.filter(({ status }) => status.bytes_mismatched > 0);
      if (wrong !== undefined) throw mismatch(wrong);
    },
  });
}

async function prepareOne(
  pair: DevicePair,
  options: JobOptions,
  environment: JobEnvironment,
  signal: AbortSignal,
): Promise<Verified> {
  const { device } = pair;
  const target = parseTarget(pair.target);
  if (target.kind === 'vault')
    throw new AgentError(
      'NOT_SUPPORTED',
      `${pair.target} is a vault, whose recovery points are verified one by one`,
      {
        hint: "'dattocli points' lists them, and 'dattocli verify POINT' verifies one",
      },
    );
  const subject = chainSubject(device, target);
  const chains = await chainsDirectory(environment);
  const unit = untrackedUnit(device.size);
  const chain = await Chain.open(chains, subject, unit);
  if (chain?.record.size !== device.size)
    throw new AgentError('CHAIN_NOT_FOUND', `nothing ${await whatIsKnown(chain, chains, subject)}`, {
      hint: "'dattocli chains' lists the known targets; a target has to be named as it was for the backup",
    });
  const pool = new CopyPool({
    sourcePath: device.path,
    deviceSize: device.size,
    livePartitions: [],
    target,
    access: 'read',
    threads: options.connections,
    unit,
    fingerprintPath: chain.fingerprintPath,
    key: chain.key,
    rate: undefined,
    onReadError: 'fail',
    room: SpoolRoom.create(0),
    reconnectMs: options.reconnectMs,
  });
  const close = () => pool.close();
  try {
    pool.stopWith(signal);
    const facts = await pool.open();
    if (!facts.abilities.read)
      throw new AgentError('NOT_SUPPORTED', `${pool.targetName} cannot be read`, {
        hint: 'verify it at the receiver',
      });
  } catch (error) {
    await close();
    throw error;
  }
  const distrust = (): Promise<void> => chain.save({ state: 'incomplete', torn: true });
  pool.expect({ known: () => driftSample(chain), distrust });
  const all = new Bitmap(device.size, unit);
  all.fill(true);
  const known = knownUnits(chain, all);
  const status = { ...initialStatus(pair, targetName(target)), kind: 'verify' as const, freeze_ms: 0 };
  status.used_bytes = known.bytes();
  status.bytes_unsynced = status.used_bytes;
  const totalBytes = (): number => status.used_bytes;
  return { pair, pool, chain, known, isLive: false, totalBytes, close, discard: close, status };
}

async function whatIsKnown(
  chain: Chain | undefined,
  chains: string,
  subject: Parameters<typeof Chain.exists>[1],
): Promise<string> {
  const about = `is known of ${subject.path} at ${subject.target}`;
  if (chain !== undefined)
    return `${about} any more: the device has ${subject.size} bytes now and had ${chain.record.size}`;
  return (await Chain.exists(chains, subject)) ? `${about} any more: the record is damaged` : about;
}

async function verifyOne({ pool, chain, known, status }: Verified): Promise<void> {
  const { mismatches } = await pool.verify(known);
  status.bytes_mismatched = Math.min(mismatches * fingerprintUnit, status.device_size);
  status.bytes_unknown = status.device_size - pool.counters().verified;
  if (mismatches > 0) await chain.save({ state: 'incomplete', torn: true });
}

function mismatch({ pool, pair, status }: Verified): AgentError {
  return new AgentError(
    'TARGET_MISMATCH',
    `${pool.targetName} does not hold what the backups of ${pair.device.path} left there: ${status.bytes_mismatched} bytes ` +
      `of ${pool.counters().verified} that were compared are in places that differ`,
    {
      hint: 'do not trust this image; check the disk and the memory of the receiver, then make a full backup',
    },
  );
}
