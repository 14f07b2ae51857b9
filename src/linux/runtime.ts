/**
 * Direct calls to functions of libraries in the runtime's executable (zstd, OpenSSL). A runtime may not export or
 * contain them, so every caller needs a fallback.
 */
import koffi from 'koffi';

/** The name in C, the type of the result and the types of the parameters, in koffi's notation. */
export type Signature = readonly [name: string, result: string, ...parameters: string[]];

/** Returns all functions, or undefined if one is missing. The caller must ensure that `F` matches the signatures. */
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
