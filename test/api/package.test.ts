/** The package as it is published, in an empty project: its size, its declarations, its documents, and a plug-in beside it. */
import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import picomatch from "picomatch";
import { beforeAll, describe, expect, it } from "vitest";
import { workFolder } from "../support/goldens.ts";

const root = new URL("../..", import.meta.url).pathname;
const work = workFolder();
const {
  dependencies,
  files,
  scripts,
  exports: entries,
} = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
let tarball = "";

/** Errors of the compiler, "" if there are none. */
function tsc(folder: string, ...args: readonly string[]): string {
  const program = join(root, "node_modules/typescript/lib/tsc.js");
  return spawnSync(process.execPath, [program, ...args], { cwd: folder, encoding: "utf8" }).stdout;
}

/** Runs a program of an installed package in the project; its output has no colours. */
function run(program: string, ...args: readonly string[]) {
  const path = join(work, "node_modules", program);
  const { FORCE_COLOR: _, ...env } = process.env;
  return spawnSync(process.execPath, [path, ...args], {
    ...{ cwd: work, encoding: "utf8" },
    env: { ...env, NO_COLOR: "1" },
  });
}

/** An empty project in which the package, its dependencies, `@types/node` and vitest are installed. */
beforeAll(() => {
  const packed = join(work, "packed");
  for (const path of ["package.json", "package", "docs", "README.md", "LICENSE"])
    cpSync(join(root, path), join(packed, path), { recursive: true });
  for (const path of ["bin", "src", "formats", "kernels"])
    cpSync(join(root, "dist", path), join(packed, "dist", path), { recursive: true });
  expect(tsc(root, "-p", "tsconfig.types.json", "--outDir", join(packed, "dist"))).toBe("");
  const [, steps] = /(node package\/declarations.js .*)$/.exec(scripts.prepack)!;
  symlinkSync(join(root, "node_modules"), join(packed, "node_modules"));
  execFileSync("bash", ["-c", steps!], { cwd: packed, stdio: "pipe" });
  const pack = ["pack", "--ignore-scripts", "--json", "--pack-destination", work];
  const [{ filename }] = JSON.parse(execFileSync("npm", pack, { cwd: packed, encoding: "utf8" }));
  tarball = join(work, filename);
  const installed = join(work, "node_modules/isologit");
  mkdirSync(installed, { recursive: true });
  execFileSync("tar", ["xzf", tarball, "--strip-components=1", "-C", installed]);
  for (const name of [...Object.keys(dependencies), "@types/node", "vitest"]) {
    const link = join(work, "node_modules", name);
    mkdirSync(dirname(link), { recursive: true });
    symlinkSync(join(root, "node_modules", name), link);
  }
  writeFileSync(join(work, "package.json"), '{"type": "module"}');
  cpSync(join(root, "fixtures/plugin"), work, { recursive: true });
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

  /** Damages of the example, and the test that must find each. */
  const DAMAGES: Readonly<Record<string, readonly [file: string, from: string, to: string, test: string]>> = {
    "a rule that stores rows twice": [
      "family.js",
      'concat(0, [role("mlp.gate"), role("mlp.up")])',
      'concat(0, [role("mlp.gate"), role("mlp.gate")])',
      "stored tensors and roles are two cuts of the same elements",
    ],
    "rows that go to another stream": [
      "family.js",
      'rows("gate", 0, d.ffn), rows("up", d.ffn, d.ffn)',
      'rows("up", 0, d.ffn), rows("gate", d.ffn, d.ffn)',
      "computes what torch computed",
    ],
    "a stream that no stage reads": [
      "family.js",
      'from: ["gate", "up"]',
      'from: ["gate", "gate"]',
      "all that is made is read",
    ],
    "a kernel that is run on too little": [
      "family.js",
      "{ count: tokens * ffn }",
      "{ count: tokens }",
      "each deliberate fault is found",
    ],
    "an offset that is off by one": ["format.js", "DATA, end);\n", "DATA, end + 1);\n", "one Mamba layer"],
    "a size that is not compared": [
      "format.js",
      "if (size === expected) return;",
      "return;",
      "one byte short",
    ],
    "a wrong sign": ["kernel.js", "Math.exp(-gate[i])", "Math.exp(gate[i])", "is within its bound"],
  };

  it("passes the suites in its author's vitest", () => {
    const { status, stdout } = run("vitest/vitest.mjs", "run", "plugin.test.js");
    expect(stdout).toMatch(/Tests .*\b\d\d passed/);
    expect(status, stdout).toBe(0);
  });

  it.each(Object.entries(DAMAGES))("%s turns a suite red", (name, [file, from, to, test]) => {
    const text = readFileSync(join(work, file), "utf8");
    expect(text).toContain(from);
    writeFileSync(join(work, file), text.replace(from, to));
    const { status, stdout } = run("vitest/vitest.mjs", "run", "plugin.test.js", "-t", test);
    writeFileSync(join(work, file), text);
    expect(status, name).toBe(1);
    expect(stdout).toMatch(new RegExp(`× .*${test}`));
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
