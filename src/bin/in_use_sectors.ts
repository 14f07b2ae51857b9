/** `in_use_sectors DEV`: prints the used ranges in the predecessor's format, `0xSTART 0xLENGTH` in bytes. */
import { Command } from 'commander';
import { expectedFilesystems } from '../devices/expected-filesystems.ts';
import { refuseMounted, offlineDevice } from '../devices/offline-device.ts';
import { runProgram } from '../base/run-program.ts';
import { StandardOutput } from '../base/standard-output.ts';
import { agentVersion } from '../base/version.ts';
import { writeError } from '../base/visible.ts';
import { openDeviceSource } from '../block/device-source.ts';
import { readVerifiedUsedMap } from '../filesystems/read-verified-used-map.ts';

const output = new StandardOutput();

const program = new Command('in_use_sectors')
  .description('Print the byte ranges that the filesystem on DEV uses, as 0xSTART 0xLENGTH, one per line.')
  .argument('<dev>', 'block device or image file, not mounted writable')
  .version(agentVersion)
  .configureOutput({ writeOut: (text) => output.write(text) })
  .exitOverride()
  .action(async (name: string) => {
    const { device, devices } = await offlineDevice(name);
    refuseMounted(device);
    const expected = expectedFilesystems(device, devices);
    const source = await openDeviceSource(device.path);
    try {
      const map = await readVerifiedUsedMap(
        (offset, length) => source.readAt(offset, length),
        source.size,
        source.sectorSize,
        { expected: expected.whole, partitionsExpected: new Map(expected.partitions) },
      );
      for (const warning of map.warnings) writeError(`in_use_sectors: ${warning}\n`);
      for await (const extents of map.extents) {
        output.write(
          extents.map(({ offset, length }) => `0x${offset.toString(16)} 0x${length.toString(16)}\n`).join(''),
        );
        if (output.hasEnded) break;
      }
    } finally {
      await source.close();
    }
  });

await runProgram(program, output);
