#!/usr/bin/env node
/** The executable. It parses nothing. */
import { guardProcess } from "../src/cli/failure.ts";
import { processIo } from "../src/cli/io.ts";
import { main } from "../src/cli/main.ts";
import { library } from "./on-demand.ts";

const io = processIo();
guardProcess(io);
process.exitCode = await main(process.argv.slice(2), library, io);
