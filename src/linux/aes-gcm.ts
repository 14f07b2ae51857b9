/**
 * AES-256-GCM from buffer to buffer, by direct calls to the OpenSSL of the runtime (EVP_EncryptInit(3)). Node's own
 * functions return a new buffer for each call. A busy thread leaves 64 MiB of such buffers before they are collected,
 * which matters with several threads (measured with Node 24). The key schedule is computed once. If the runtime does
 * not export these functions, node:crypto is used.
 *
 * The caller must never use a nonce twice with the same key.
 */
import { createCipheriv, createDecipheriv } from 'node:crypto';
import { type Signature, runtimeFunctions } from './runtime.ts';

/** Bytes. */
const gcmKeyLength = 32;
const gcmNonceLength = 12;
export const gcmTagLength = 16;

/** evp.h: EVP_CTRL_AEAD_GET_TAG, EVP_CTRL_AEAD_SET_TAG. */
const getTag = 0x10;
const setTag = 0x11;

type Pointer = unknown;

/** Functions of OpenSSL. Those that return a number return 1 for success. */
interface Functions {
  readonly aes256Gcm: () => Pointer;
  readonly newContext: () => Pointer;
  readonly freeContext: (context: Pointer) => void;
  readonly init: (
    context: Pointer,
    cipher: Pointer,
    engine: null,
    key: Uint8Array | null,
    nonce: Uint8Array | null,
    encrypts: 0 | 1,
  ) => number;
  readonly control: (context: Pointer, what: number, length: number, data: Uint8Array) => number;
  readonly update: (
    context: Pointer,
    into: Uint8Array | null,
    written: Uint8Array,
    data: Uint8Array,
    length: number,
  ) => number;
  readonly final: (context: Pointer, into: Uint8Array, written: Uint8Array) => number;
}

const signatures: Readonly<Record<keyof Functions, Signature>> = {
  aes256Gcm: ['EVP_aes_256_gcm', 'const void *'],
  newContext: ['EVP_CIPHER_CTX_new', 'void *'],
  freeContext: ['EVP_CIPHER_CTX_free', 'void', 'void *'],
  init: [
    'EVP_CipherInit_ex',
    'int',
    'void *',
    'const void *',
    'void *',
    'const void *',
    'const void *',
    'int',
  ],
  control: ['EVP_CIPHER_CTX_ctrl', 'int', 'void *', 'int', 'int', 'void *'],
  update: ['EVP_CipherUpdate', 'int', 'void *', 'void *', 'void *', 'const void *', 'int'],
  final: ['EVP_CipherFinal_ex', 'int', 'void *', 'void *', 'void *'],
};

const functions = runtimeFunctions<Functions>(signatures);

/** True if the runtime's own AES is called directly. @internal */
export const hasDirectGcm = functions !== undefined;

/** Frees the contexts of collected objects. A terminated thread may leave a few contexts, of about 1 KiB each. */
const forgotten = new FinalizationRegistry<Pointer>((context) => functions?.freeContext(context));

export class Aes256Gcm {
  readonly #key: Buffer;
  readonly #direct: Functions | undefined;
  #sealing: Pointer;
  #opening: Pointer;
  readonly #written = Buffer.alloc(4);
  readonly #rest = Buffer.alloc(gcmTagLength);

  /** `key`: 32 bytes. If `direct` is false, node:crypto is used. */
  constructor(key: Uint8Array, { direct = true }: { readonly direct?: boolean } = {}) {
    if (key.length !== gcmKeyLength) throw new RangeError(`a key of ${key.length} bytes`);
    this.#key = Buffer.from(key);
    this.#direct = direct ? functions : undefined;
  }

  /** Writes ciphertext and tag, `gcmTagLength` bytes more than `data`, to the beginning of `into`. */
  seal(nonce: Uint8Array, additional: Uint8Array, data: Uint8Array, into: Uint8Array): void {
    this.#check(nonce, data.length + gcmTagLength, into);
    if (this.#direct === undefined) {
      const cipher = createCipheriv('aes-256-gcm', this.#key, nonce);
      cipher.setAAD(additional);
      into.set(cipher.update(data));
      cipher.final();
      into.set(cipher.getAuthTag(), data.length);
      return;
    }
    this.#sealing ??= this.#context(this.#direct, 1);
    const { init, update, final, control } = this.#direct;
    const context = this.#sealing;
    const tag = into.subarray(data.length, data.length + gcmTagLength);
    const done =
      init(context, null, null, null, nonce, 1) === 1 &&
      update(context, null, this.#written, additional, additional.length) === 1 &&
      update(context, into, this.#written, data, data.length) === 1 &&
      final(context, this.#rest, this.#written) === 1 &&
      control(context, getTag, gcmTagLength, tag) === 1;
    if (!done) throw new Error(`OpenSSL did not seal ${data.length} bytes`);
  }

  /**
   * Decrypts ciphertext and tag. Writes the plaintext, `gcmTagLength` bytes fewer, to the beginning of `into`. Returns
   * false if anything was altered; then the content of `into` must not be used.
   */
  open(nonce: Uint8Array, additional: Uint8Array, sealed: Uint8Array, into: Uint8Array): boolean {
    const length = sealed.length - gcmTagLength;
    if (length < 0) return false;
    this.#check(nonce, length, into);
    const tag = sealed.subarray(length);
    if (this.#direct === undefined)
      return this.#openByCrypto(nonce, additional, sealed.subarray(0, length), tag, into);
    this.#opening ??= this.#context(this.#direct, 0);
    const { init, update, final, control } = this.#direct;
    const context = this.#opening;
    const isReady =
      init(context, null, null, null, nonce, 0) === 1 &&
      control(context, setTag, gcmTagLength, tag) === 1 &&
      update(context, null, this.#written, additional, additional.length) === 1 &&
      update(context, into, this.#written, sealed, length) === 1;
    if (!isReady) throw new Error(`OpenSSL did not open ${sealed.length} bytes`);
    return final(context, this.#rest, this.#written) === 1;
  }

  #openByCrypto(
    nonce: Uint8Array,
    additional: Uint8Array,
    data: Uint8Array,
    tag: Uint8Array,
    into: Uint8Array,
  ): boolean {
    const decipher = createDecipheriv('aes-256-gcm', this.#key, nonce, { authTagLength: gcmTagLength });
    decipher.setAAD(additional);
    decipher.setAuthTag(tag);
    into.set(decipher.update(data));
    try {
      decipher.final();
      return true;
    } catch {
      return false;
    }
  }

  /** Checks the lengths, because the C functions cannot. */
  #check(nonce: Uint8Array, needed: number, into: Uint8Array): void {
    if (nonce.length !== gcmNonceLength) throw new RangeError(`a nonce of ${nonce.length} bytes`);
    if (into.length < needed) throw new RangeError(`${needed} bytes do not fit into ${into.length}`);
  }

  #context({ newContext, init, aes256Gcm }: Functions, encrypts: 0 | 1): Pointer {
    const context = newContext();
    if (context === null || init(context, aes256Gcm(), null, this.#key, null, encrypts) !== 1)
      throw new Error('OpenSSL has no AES-256-GCM');
    forgotten.register(this, context);
    return context;
  }
}
