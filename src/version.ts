import { readFileSync } from "node:fs";
import { builtFile } from "./core/built-file.ts";

/** This package's version. It enters plan ids, for another version may write other bytes. */
export const version: string = JSON.parse(
  readFileSync(new URL("../../package.json", builtFile(import.meta.url, "./version.js")), "utf8"),
).version;
