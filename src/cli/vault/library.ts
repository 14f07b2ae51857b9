/**
 * The code of vaults that several commands use, in one module. A command loads it when it runs, so that all other
 * commands start as fast as without vaults.
 */
export { checkVault } from '../../vault/check/check-vault.ts';
export { repairVault } from '../../vault/check/repair.ts';
export { readConfig as readVaultConfig } from '../../vault/config.ts';
export { ChunkIndex } from '../../vault/index/chunk-index.ts';
export { PointImage } from '../../vault/image.ts';
export { makeKeyFile, replaceKeyFile } from '../../vault/key-file.ts';
export { newKeyFileText, newRecoveryCode } from '../../vault/key-material.ts';
export { addKey, findKey, listKeys, removeKey, restoreKey } from '../../vault/keys.ts';
export { ImageMap } from '../../vault/maps/image-map.ts';
export {
  findVault,
  openPlace,
  openVault,
  readPassphrase,
  readSecret,
  readSecretIfThere,
  storedKey,
} from '../../vault/opening.ts';
export { PartReader } from '../../vault/packs/part-reader.ts';
export {
  filterPoints,
  findDevice,
  findSameDevice,
  idsBeginningWith,
  isLatest,
} from '../../vault/points/find.ts';
export { DeviceIdentities } from '../../vault/points/identity.ts';
export { listKeys as listObjectKeys } from '../../vault/points/objects.ts';
export {
  findPoint,
  forgetPoint,
  listPoints,
  listProtected,
  protectPoint,
  unprotectPoint,
} from '../../vault/points/points.ts';
export { choosePoints, defaultGrace } from '../../vault/points/retention.ts';
export { standingDamage } from '../../vault/points/standing-damage.ts';
export { prune } from '../../vault/prune/prune.ts';
export { listAtWork, unlockVault } from '../../vault/prune/unlock.ts';
export { vaultStats } from '../../vault/stats.ts';
export { storeClock } from '../../vault/store-clock.ts';
export { formatVaultLocation, parseVaultLocation } from '../../vault/store/location.ts';
export { readSlots, unlock } from '../../vault/unlock.ts';
export { thisProcess } from '../../vault/writing/owner.ts';
export { createVault } from './create-vault.ts';
export { pointDocument, readFacts } from './point-document.ts';
