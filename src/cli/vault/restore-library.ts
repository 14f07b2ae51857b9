/** The code of restores that the commands use. A command loads it when it runs; see library.ts. */
export { silentLog } from '../../base/log.ts';
export { exportImage } from '../../restore/export/export-image.ts';
export { restoreFiles } from '../../restore/files.ts';
export { clearMounts, listMounts, mountImage, unmountImage } from '../../restore/mount/mount.ts';
export { layoutPlaces } from '../../restore/mount/over.ts';
export { parseDestination } from '../../restore/target/acquire-destination.ts';
export { restoreToTarget } from '../../restore/target/to-target.ts';
