#!/usr/bin/env node
/** The executable. It parses nothing. */
import { guardProcess } from "../src/cli/failure.ts";
import { processIo } from "../src/cli/io.ts";
import { main } from "../src/cli/main.ts";
import { library } from "./on-demand.ts";

const INTERRUPTED = 5;

const io = processIo();
guardProcess(io);
process.exitCode = await main(process.argv.slice(2), library, io);
// who interrupts does not wait for a request that a library cannot take back; all that was said is out first
if (process.exitCode === INTERRUPTED) {
  process.stdout.write("", () => process.stderr.write("", () => process.exit()));
}
