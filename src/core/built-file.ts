/**
 * Workers and the WebAssembly module exist only as built files. Code that runs from TypeScript sources (the
 * tests do) finds them in `dist`, at the same place.
 */
export function builtFile(moduleUrl: string, relative: string): URL {
  const url = new URL(relative, moduleUrl);
  if (!moduleUrl.endsWith(".ts")) return url;
  const root = new URL("../../", import.meta.url).href; // this file is src/core/built-file.ts
  return new URL(`dist/${url.href.slice(root.length)}`, root);
}
