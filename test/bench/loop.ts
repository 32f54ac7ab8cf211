/**
 * The floor of any conversion here: a folder's bytes in and out through this process, no arithmetic and no digest.
 *
 *   node loop.js SOURCE OUT
 */
import { closeSync, mkdirSync, openSync, readdirSync, readSync, writeSync } from "node:fs";
import { join } from "node:path";

const [source, out] = process.argv.slice(2);
const block = new Uint8Array(1024 * 1024);
mkdirSync(out!);
for (const name of readdirSync(source!)) {
  const [from, to] = [openSync(join(source!, name), "r"), openSync(join(out!, name), "w")];
  for (let read = readSync(from, block); read > 0; read = readSync(from, block)) {
    for (let done = 0; done < read; ) done += writeSync(to, block, done, read - done);
  }
  closeSync(from);
  closeSync(to);
}
