/** Recovery points for tests. They are whole documents; a test gives only the fields that it is about. */
import { newId } from '../../src/vault/ids.ts';
import type { Point, PointDevice } from '../../src/vault/points/point.ts';

export function samplePoint(changes: Partial<Point> = {}): Point {
  return {
    format: 1,
    id: newId(),
    finished: '2024-05-01T12:00:00.000Z',
    started: '2024-05-01T11:59:00.000Z',
    job: '6f1e5a4e-6f0e-4d5e-9c55-0a8f0b3b8f11',
    kind: 'full',
    agent: '1.0.0',
    machine: { id: '0f'.repeat(16), name: 'alpha', boot: 'uefi', layout: { disks: [] } },
    warnings: [],
    devices: [sampleDevice()],
    ...changes,
  };
}

export function sampleDevice(changes: Partial<PointDevice> = {}): PointDevice {
  return {
    path: '/dev/sda1',
    size: 2 ** 30,
    sector_size: 512,
    filesystem: { type: 'ext4', uuid: 'c1a8a2f4-5f0b-4b36-8a9c-6f7d3a0f1e22', label: 'root' },
    partition: { disk: '/dev/sda', number: 1, start: 2 ** 20, uuid: '7d1c0c3e-02' },
    root: 'a5'.repeat(32),
    levels: 1,
    used_bytes: 2 ** 29,
    stored_bytes: 2 ** 28,
    freeze_ms: 12.5,
    consistency: 'frozen',
    tracker: 'ebpf',
    kind: 'full',
    read_errors: [],
    read_only: false,
    ...changes,
  };
}
