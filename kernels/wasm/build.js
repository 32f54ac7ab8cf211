// Compiles the AssemblyScript kernels into one module, dist/kernels/wasm/kernels.wasm, unless it is newer than all of these.
import { mkdirSync, readdirSync, statSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../", import.meta.url));
const folder = `${root}kernels/wasm/`;
const out = `${root}dist/kernels/wasm/`;
mkdirSync(out, { recursive: true });

/** @param {string} path */
const modified = (path) => statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
const inputs = [
  ...readdirSync(folder, { recursive: true }).map((name) => folder + name),
  `${root}package-lock.json`,
]; // the lock: of the compiler
if (modified(`${out}kernels.wasm`) > Math.max(...inputs.map(modified))) process.exit();

const { default: asc } = await import("assemblyscript/asc"); // takes a second to load
const { error, stderr } = await asc.main([
  `${root}kernels/wasm/index.ts`,
  "--outFile",
  `${out}kernels.wasm`,
  "--optimizeLevel",
  "3",
  "--shrinkLevel",
  "0",
  "--noAssert",
  // No heap and no garbage collector: the host owns the memory and passes addresses. The constants of the
  // module lie below 64 KiB, where the host writes nothing.
  "--runtime",
  "stub",
  "--importMemory",
  "--sharedMemory",
  "--initialMemory",
  "1",
  "--maximumMemory",
  "65536",
  "--enable",
  "simd",
  "--enable",
  "threads",
]);
if (error !== null) {
  console.error(stderr.toString());
  process.exit(1);
}
