/**
 * The address of a worker or of the WebAssembly module, which exist only as built files. Code that runs from the
 * TypeScript sources, as the tests do, finds them in `dist` under the same path.
 */
export function builtFile(moduleUrl: string, relative: string): URL {
  const url = new URL(relative, moduleUrl);
  if (!moduleUrl.endsWith(".ts")) return url;
  const root = new URL("../../", import.meta.url).href; // this file is src/core/built-file.ts
  return new URL(`dist/${url.href.slice(root.length)}`, root);
}
