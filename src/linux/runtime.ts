/**
 * Functions of the libraries that the runtime has linked in and shows (zstd, OpenSSL), called directly. A runtime may
 * hide or lack them, so that whoever wants them has another way as well.
 */
import koffi from 'koffi';

/** Name in C, type of the result, types of the parameters; in koffi's words. */
export type Signature = readonly [name: string, result: string, ...parameters: string[]];

/** All of them, or undefined. That `F` is what the signatures say holds by the caller's construction. */
export function runtimeFunctions<F>(signatures: Readonly<Record<keyof F, Signature>>): F | undefined {
  try {
    const runtime = koffi.load(null);
    const entries = Object.entries<Signature>(signatures).map(([key, [name, result, ...parameters]]) => [
      key,
      runtime.func(name, result, parameters),
    ]);
    return Object.fromEntries(entries) as F;
  } catch {
    return undefined;
  }
}
