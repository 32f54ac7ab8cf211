/** The package as it is published, in an empty project: its size, its declarations, its documents, and a plug-in beside it. */
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import picomatch from "picomatch";
import { beforeAll, describe, expect, it } from "vitest";
import { workFolder } from "../support/goldens.ts";
import { installPackage, runIn, tsc } from "../support/package.ts";

const root = new URL("../..", import.meta.url).pathname;
const work = workFolder();
const { files, exports: entries } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const run = (program: string, ...args: readonly string[]) => runIn(work, program, ...args);
let tarball = "";

beforeAll(() => {
  tarball = installPackage(work);
});

it("is smaller than its limit", () => {
  expect(statSync(tarball).size).toBeLessThan(790_000);
});

it.each([
  ["nodenext", "nodenext"],
  ["bundler", "esnext"],
])("compile under --strict by %s, without skipLibCheck", (moduleResolution, module) => {
  const names = Object.keys(entries).map((path) => path.replace(".", "isologit"));
  const imports = names.map((name, i) => `import * as part${i} from "${name}";\nconsole.log(part${i});\n`);
  writeFileSync(join(work, "use.ts"), imports.join(""));
  const flags = ["--strict", "--noEmit", "--target", "es2022", "--module", module];
  flags.push("--moduleResolution", moduleResolution);
  expect(tsc(work, ...flags, "use.ts")).toBe("");
  expect(tsc(work, ...flags, "--checkJs", "plugin.js")).toBe("");
});

describe("the plug-in of docs/extending.md", () => {
  const PROGRAM = "isologit/dist/bin/isologit.js";
  const plugin = ["--plugin", "./plugin.js"];

  it("inspects, converts and verifies", () => {
    expect(run(PROGRAM, "inspect", "model").stdout).toMatch(/^family +unknown$/m);
    expect(run(PROGRAM, "inspect", "model", ...plugin).stdout).toMatch(/^family +gated-mlp$/m);
    const converted = run(PROGRAM, "convert", "model", "out.raw", "--backend", "wasm", ...plugin);
    expect(converted.stderr + converted.stdout).toContain("same: wrote out.raw, the same model as model");
    expect(converted.stdout).toMatch(/^plug-in {2}gated-mlp 1\.0\.0$/m);
    for (const other of [["model"], []]) {
      const verified = run(PROGRAM, "verify", ...other, "out.raw", "--backend", "wasm", ...plugin);
      expect(verified).toMatchObject({ status: 0 });
    }
    expect(run(PROGRAM, "inspect", "out.raw").stderr).toContain("FORMAT_UNKNOWN");
  });

  it("passes the suites in its author's vitest", () => {
    const { status, stdout } = run("vitest/vitest.mjs", "run", "plugin.test.js");
    expect(stdout).toMatch(/Tests .*\b\d\d passed/);
    expect(status, stdout).toBe(0);
  });
});

it("holds the documents that messages name", () => {
  const sources = ["bin", "src", "formats", "kernels"].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: "utf8" }).map((path) =>
      join(root, folder, path),
    ),
  );
  const texts = sources.filter((path) => path.endsWith(".ts")).map((path) => readFileSync(path, "utf8"));
  const code = texts.join("\n").replace(/^\s*(\/\/|\/?\*).*$/gm, ""); // without comments
  const named = new Set(code.match(/\bdocs\/[\w-]+\.\w+/g));
  expect(named.size).toBeGreaterThan(0);
  expect([...named].filter((path) => !picomatch(files)(path))).toEqual([]);
});
