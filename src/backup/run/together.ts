import type { JobDevice } from '../device-backup.ts';

/** Runs `work` for all devices in parallel. The first failure stops the others. Returns only when all have ended. */
export async function together<Device extends JobDevice>(
  devices: readonly Device[],
  work: (device: Device) => Promise<void>,
): Promise<void> {
  let first: { error: unknown } | undefined;
  await Promise.all(
    devices.map(async (device) => {
      try {
        await work(device);
      } catch (error) {
        if (first !== undefined) return;
        first = { error };
        for (const other of devices) if (other !== device) other.pool.stop();
      }
    }),
  );
  if (first !== undefined) throw first.error;
}
