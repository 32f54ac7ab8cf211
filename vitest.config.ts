import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const files = readdirSync(new URL("test", import.meta.url), { recursive: true, encoding: "utf8" })
  .map((path) => `test/${path.replaceAll("\\", "/")}`)
  .filter((path) => path.endsWith(".test.ts") && !path.startsWith("test/long/"));

const sourceAt = (path: string) => fileURLToPath(new URL(path, import.meta.url));
const textOf = (path: string) => readFileSync(new URL(path, import.meta.url), "utf8");
/** Files that put doubles in the place of modules or load the driver of a GPU: each of these has a process of its own. */
const alone = files.filter((path) => /\bvi\.mock\(|\/(software-gpu|forms)\.ts"/.test(textOf(path)));

/** All other files share two processes, so that the sources are loaded and compiled twice, not once for each file. */
export default defineConfig({
  // fixtures/plugin imports the package by its name, as an author does
  resolve: {
    alias: [
      { find: /^isologit$/, replacement: sourceAt("src/index.ts") },
      { find: /^isologit\/(\w+)$/, replacement: sourceAt("src/authoring/$1.ts") },
    ],
  },
  test: {
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 120_000,
    projects: [
      {
        extends: true,
        test: {
          name: "shared",
          isolate: false,
          setupFiles: ["test/support/environment.ts"],
          include: ["test/**/*.test.ts"],
          exclude: ["test/long/**", ...alone],
        },
      },
      { extends: true, test: { name: "alone", include: alone, sequence: { groupOrder: 1 } } },
    ],
  },
});
