/**
 * `fsawarebdcopy SRC DST`: copies the used blocks of an idle filesystem to a device, an image file or an NBD server. It uses
 * the engine of the daemon, but needs no daemon.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Command } from 'commander';
import type { RunningJob } from '../backup/job.ts';
import { defaultJobOptions } from '../backup/job.ts';
import { offlineDevice, refuseMounted } from '../devices/offline-device.ts';
import { prepareJob } from '../backup/prepare/prepare-job.ts';
import type { JobStatus } from '../api/job-status.ts';
import { formatBytes } from '../base/bytes.ts';
import { AgentError } from '../base/errors.ts';
import { silentLog } from '../base/log.ts';
import { freshUuid } from '../base/random.ts';
import { runProgram } from '../base/run-program.ts';
import { StandardOutput } from '../base/standard-output.ts';
import { agentVersion } from '../base/version.ts';
import { writeError } from '../base/visible.ts';

const output = new StandardOutput();

const program = new Command('fsawarebdcopy')
  .description('Copy the used blocks of the idle filesystem on SRC to DST.')
  .argument('<src>', 'block device or image file, not mounted writable')
  .argument('<dst>', 'block device, image file (created if missing) or NBD URI (nbd://HOST:PORT/EXPORT)')
  .option('--verify <level>', 'how much to read back: none, sample or full', 'sample')
  .version(agentVersion)
  .configureOutput({ writeOut: (text) => output.write(text) })
  .exitOverride()
  .action(async (src: string, dst: string, { verify }: { verify: string }) => {
    if (verify !== 'none' && verify !== 'sample' && verify !== 'full')
      throw new AgentError('BAD_USAGE', `--verify "${verify}" is not one of none, sample, full`);
    const { device, devices } = await offlineDevice(src);
    refuseMounted(device);
    const scratch = await mkdtemp(join(tmpdir(), 'fsawarebdcopy-'));
    try {
      const prepared = await prepareJob(
        {
          uuid: freshUuid(),
          kind: 'full',
          devices,
          pairs: [{ device, target: /^nbds?(\+unix)?:/.test(dst) ? dst : resolve(dst) }],
          options: { ...defaultJobOptions, impact: 'high', verify },
        },
        {
          log: silentLog(),
          holdWhileFrozen: [],
          offline: true,
          stateDirectory: scratch,
          runDirectory: scratch,
        },
      );
      await follow(prepared.start());
    } finally {
      await rm(scratch, { recursive: true, force: true });
    }
  });

async function follow(job: RunningJob): Promise<void> {
  const cancel = (): void => void job.cancel('Cancelled by a signal').catch(() => undefined);
  process.on('SIGINT', cancel);
  process.on('SIGTERM', cancel);
  const progress = setInterval(() => showProgress(job.status()), 500);
  const status = await job.done;
  clearInterval(progress);
  clearProgress();
  for (const { message } of status.warnings) writeError(`fsawarebdcopy: warning: ${message}\n`);
  if (status.error !== null) throw AgentError.fromDocument(status.error);
  const [device] = status.devices;
  output.write(
    `${formatBytes(device?.used_bytes ?? 0)} of ${formatBytes(device?.device_size ?? 0)} in use, ` +
      `${formatBytes(device?.bytes_sent ?? 0)} sent, ${formatBytes(device?.bytes_zero ?? 0)} zeros, ` +
      `${formatBytes(device?.bytes_verified ?? 0)} read back\n`,
  );
  if (status.warnings.length > 0) process.exitCode = 5;
}

function showProgress({ devices: [device], rate }: JobStatus): void {
  if (!process.stderr.isTTY || device === undefined) return;
  const percent =
    device.used_bytes > 0 ? Math.floor((device.bytes_transferred / device.used_bytes) * 100) : 0;
  process.stderr.write(`\r${percent} %  ${formatBytes(device.bytes_transferred)}  ${formatBytes(rate)}/s   `);
}

function clearProgress(): void {
  if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');
}

await runProgram(program, output);
