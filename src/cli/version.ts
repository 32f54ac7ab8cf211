/** The version in package.json, which lies beside `src` and, once built, beside `dist`. */
import { readFileSync } from "node:fs";

export function versionOf(moduleUrl: string = import.meta.url): string {
  const up = moduleUrl.endsWith(".ts") ? "../../" : "../../../";
  const manifest: unknown = JSON.parse(readFileSync(new URL(`${up}package.json`, moduleUrl), "utf8"));
  return String((manifest as { version: unknown }).version); // our own file: npm refuses one without it
}
