/** The bundler puts the module in as text (esbuild's `base64` loader). */
declare module '*.wasm' {
  const base64: string;
  export default base64;
}
