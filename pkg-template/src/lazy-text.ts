// What all modules of the package mean by `TextDecoder` and `TextEncoder` (see xtask/js/bundle.mjs): the platform's, made
// on first use. The glue that wasm-bindgen writes makes one of each at import, and where there are none (tests in jsdom)
// the import itself would fail.

class LazyTextDecoder {
  readonly #settings: ConstructorParameters<typeof TextDecoder>;
  #decoder: TextDecoder | undefined;

  constructor(...settings: ConstructorParameters<typeof TextDecoder>) {
    this.#settings = settings;
  }

  decode(bytes?: AllowSharedBufferSource): string {
    // The glue warms its decoder up with nothing.
    if (bytes === undefined) return '';
    this.#decoder ??= new globalThis.TextDecoder(...this.#settings);
    return this.#decoder.decode(bytes);
  }
}

class LazyTextEncoder {
  #encoder: TextEncoder | undefined;

  get #real(): TextEncoder {
    return this.#encoder ??= new globalThis.TextEncoder();
  }

  encode(text: string): Uint8Array {
    return this.#real.encode(text);
  }

  encodeInto(text: string, bytes: Uint8Array): TextEncoderEncodeIntoResult {
    return this.#real.encodeInto(text, bytes);
  }
}

export { LazyTextDecoder as TextDecoder, LazyTextEncoder as TextEncoder };
