/** `in_use_sectors DEV`: prints the used ranges as the predecessor's tool did, `0xSTART 0xLENGTH` in bytes. */
import { Command } from 'commander';
import { refuseMounted, offlineDevice } from '../backup/offline.ts';
import { agentVersion } from '../base/version.ts';
import { reportError } from '../base/report.ts';
import { openDeviceSource } from '../block/device-source.ts';
import { readVerifiedUsedMap } from '../filesystems/verified.ts';

const program = new Command('in_use_sectors')
  .description('Print the byte ranges that the filesystem on DEV uses, as 0xSTART 0xLENGTH, one a line.')
  .argument('<dev>', 'block device or image file, not mounted writable')
  .version(agentVersion)
  .configureOutput({ writeErr: (text) => process.stderr.write(text) })
  .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2))
  .action(async (name: string) => {
    const { device } = await offlineDevice(name);
    refuseMounted(device);
    const source = await openDeviceSource(device.path);
    try {
      const map = await readVerifiedUsedMap(
        (offset, length) => source.readAt(offset, length),
        source.size,
        source.sectorSize,
      );
      for (const warning of map.warnings) process.stderr.write(`in_use_sectors: ${warning}\n`);
      for await (const extents of map.extents) {
        const lines = extents.map(
          ({ offset, length }) => `0x${offset.toString(16)} 0x${length.toString(16)}\n`,
        );
        if (!process.stdout.write(lines.join('')))
          await new Promise((resolve) => process.stdout.once('drain', resolve));
      }
    } finally {
      await source.close();
    }
  });

// A reader that has seen enough (`| head`) closes the pipe.
process.stdout.on('error', () => process.exit(0));

try {
  await program.parseAsync();
} catch (error) {
  const { line, exitCode } = reportError('in_use_sectors', error);
  process.stderr.write(`${line}\n`);
  process.exitCode = exitCode;
}
