/** Pre-shared keys of client and server: lines of `identity:hexkey`, the format of GnuTLS's psktool. */

/** 128 bits. A shorter key could be guessed from one recorded handshake. psktool makes keys of 32 bytes. */
export const minimumKeyBytes = 16;
