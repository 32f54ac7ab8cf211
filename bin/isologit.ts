#!/usr/bin/env node
/** The executable. It prints the version by itself, before the program is loaded. */
import { writeSync } from "node:fs";
import { version } from "../src/version.ts";

const STDOUT = 1;

const isVersion = /^(--version|-V)$/.test(process.argv[2] ?? "");
if (!isVersion || !wasPrinted(`${version}\n`)) await import("./program.ts");

/** Whether stdout took the text; if it did not, the program says why. */
function wasPrinted(text: string): boolean {
  try {
    writeSync(STDOUT, text);
    return true;
  } catch {
    return false;
  }
}
