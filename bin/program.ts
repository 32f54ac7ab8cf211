/** Runs the command line in this process. */
import { guardProcess } from "../src/cli/failure.ts";
import { processIo } from "../src/cli/io.ts";
import { main } from "../src/cli/main.ts";
import { library } from "./on-demand.ts";

const INTERRUPTED = 5;

const io = processIo();
guardProcess(io);
process.exitCode = await main(process.argv.slice(2), library, io);
// after an interruption the process does not wait for requests that cannot be cancelled; the output is flushed first
if (process.exitCode === INTERRUPTED) {
  process.stdout.write("", () => process.stderr.write("", () => process.exit()));
}
