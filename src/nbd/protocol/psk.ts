/** Pre-shared keys as both sides take them: lines of `identity:hexkey`, as GnuTLS's psktool writes them. */

/** 128 bits: a shorter key can be guessed from one recorded handshake. psktool makes 32 bytes. */
export const minimumKeyBytes = 16;
