/**
 * CRC-16 (polynomial 0x8005, reflected: 0xA001; like "CRC-16/ARC" except for the start value). ext4 uses this checksum
 * for group descriptors without metadata_csum. The register is returned unchanged, as in Linux `lib/crc16.c`.
 */
const table = new Uint16Array(256);
for (let byte = 0; byte < 256; byte++) {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xa001 : 0);
  table[byte] = crc;
}

/** Continues the register `crc` over `data`. ext4 starts with 0xffff. */
export function crc16(data: Uint8Array, crc: number): number {
  let register = crc;
  for (const byte of data) register = (register >>> 8) ^ table[(register ^ byte) & 0xff]!;
  return register;
}
