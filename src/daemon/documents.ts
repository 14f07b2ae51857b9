/** The documents of the API, by their old path. */
export type { ContinuityDocument, DeviceTrackingDocument } from '../api/tracking.ts';
export type { ChainDocument, TrackingDocument, TrackingStoppedDocument } from '../api/tracking.ts';
export type { DeviceStatus, JobKind, JobStatus } from '../api/job-status.ts';
export type { StartDocument } from '../api/start.ts';
export type { JobOptionsDocument } from '../api/job-options.ts';
export type { DeviceDocument } from '../api/devices.ts';
export type { BasicInfoDocument, BlockDeviceDocument, CompleteInfoDocument } from '../api/info.ts';
export type { HealthDocument, LsbRelease } from '../api/info.ts';
