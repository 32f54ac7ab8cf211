// Compiles the AssemblyScript kernels into one module, dist/kernels/wasm/kernels.wasm.
import { mkdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import asc from "assemblyscript/asc";

const root = fileURLToPath(new URL("../../", import.meta.url));
const out = `${root}dist/kernels/wasm/`;
mkdirSync(out, { recursive: true });

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
