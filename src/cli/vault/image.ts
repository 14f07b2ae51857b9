/** The device of a recovery point that a command names, in the form that restore, mount and export take. */
import type { ImageSpec } from '../../restore/image/open-image.ts';
import type { Point, PointDevice } from '../../vault/points/point.ts';
import type { Session } from './session.ts';

export interface NamedImage {
  readonly point: Point;
  readonly device: PointDevice;
  readonly spec: ImageSpec;
}

/** Throws POINT_NOT_FOUND, POINT_AMBIGUOUS, DEVICE_NOT_FOUND, DEVICE_AMBIGUOUS, BAD_USAGE. */
export async function namedImage(session: Session, name: string, device?: string): Promise<NamedImage> {
  const { findDevice, isLatest, findPoint } = await import('./library.ts');
  const { vault, signal } = session;
  // `latest` means the latest point with this device. It is refused if the name matches several devices.
  const point = await findPoint(vault, name, isLatest(name) ? { device } : {}, { signal });
  const found = findDevice(point, device);
  return { point, device: found, spec: imageOf(session, found) };
}

export function imageOf({ opened, vault }: Session, { path, size, root, levels }: PointDevice): ImageSpec {
  const { location, settings, indexPath } = opened;
  const secrets = vault.secrets.toMessage();
  return { kind: 'point', location, settings, secrets, indexPath, source: { path, size, root, levels } };
}
