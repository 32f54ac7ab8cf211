/** A command loads what it needs and no more: the time of a start is the time of the modules that it loads. */
import type { SpawnOptions } from "node:child_process";
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { golden, workFolder } from "../support/goldens.ts";
import { type Ended, script, start } from "../support/program.ts";

const root = new URL("../..", import.meta.url).pathname;
const work = workFolder();
const list = join(work, "modules");

/** Writes the address of each module that is loaded to the file. */
const hooks = `
  import { appendFileSync } from "node:fs";
  export function load(url, context, next) {
    appendFileSync(${JSON.stringify(list)}, url + "\\n");
    return next(url, context);
  }`;
const asModule = (text: string) => `data:text/javascript,${encodeURIComponent(text)}`;
const watching = asModule(
  `import { register } from "node:module"; register(${JSON.stringify(asModule(hooks))});`,
);

/** The modules that a run loads: `src/cli/main`, or `zod` for any module of a package. */
async function modulesOf(run: (options: SpawnOptions) => Promise<Ended>): Promise<readonly string[]> {
  rmSync(list, { force: true });
  const { status, stderr } = await run({ env: { ...process.env, NODE_OPTIONS: `--import ${watching}` } });
  expect(status, stderr).toBe(0);
  const urls = readFileSync(list, "utf8").trim().split("\n");
  const names = urls.flatMap((url) => {
    const path = url.startsWith("file:") ? new URL(url).pathname : "";
    const [, name] = /\/node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path) ?? [];
    return path === "" ? [] : [name ?? path.replace(`${root}dist/`, "").replace(/\.js$/, "")];
  });
  return [...new Set(names)].sort();
}

/** Modules that lie in one of these folders, or are one of these files or packages. */
const among = (modules: readonly string[], places: readonly string[]) =>
  modules.filter((module) => places.some((place) => module === place || module.startsWith(`${place}/`)));

it("the version needs two files beside the program's own", async () => {
  for (const flag of ["--version", "-V"])
    expect(await modulesOf((options) => start([flag], options).ended)).toEqual([
      "bin/isologit",
      "src/core/built-file",
      "src/version",
    ]);
});

/** What a description of a checkpoint has no use for. */
const NOT_FOR_INSPECT = [
  ...["src/api", "src/cli/commands", "src/report", "src/verify", "src/certificate", "src/signing"],
  ...["src/convert", "src/inference", "src/workers", "src/cast", "src/tokenizer", "src/hub", "src/scan"],
  ...["src/check", "src/checkpoint/near-misses", "kernels/wgsl", "kernels/backend", "kernels/index"],
];

describe("inspect", () => {
  it.each<[string, string, readonly string[]]>([
    ["a Hugging Face folder", "tiny", []],
    ["a NeMo 2 folder", "nemo2-tiny", ["yaml"]],
  ])(
    "of %s loads no code of other commands, of other formats and of libraries that it does not use",
    async (_, name, packages) => {
      const modules = await modulesOf((options) => start(["inspect", golden(name)], options).ended);
      const own = ["src/api/inspect", "src/cli/commands/index", "src/cli/commands/inspect"];
      const kinds = ["src/report/kinds", "src/report/json"];
      expect(
        among(modules, NOT_FOR_INSPECT).filter((module) => ![...own, ...kinds].includes(module)),
      ).toEqual([]);
      expect(modules.filter((module) => !/^(bin|src|formats|kernels)\//.test(module))).toEqual(
        ["commander", "fastest-levenshtein", "tslib", ...packages].sort(),
      );
      const readers = modules.filter((module) => /^formats\/[^/]+\/(read|write)$/.test(module));
      expect(readers).toEqual(name === "tiny" ? [] : ["formats/nemo2/read", "formats/torch-dist/read"]);
    },
  );
});

it("a conversion that is not verified loads no code that runs a model, and no native library", async () => {
  const args = [
    "convert",
    golden("tiny"),
    join(work, "tiny.isologit"),
    ...["--to", "packed", "--verify", "off", "--quiet"],
  ];
  const modules = await modulesOf((options) => start(args, options).ended);
  expect(modules).toContain("src/convert/run");
  expect(among(modules, ["kernels/wgsl", "kernels/backend", "src/verify/verify", "src/calibrate"])).toEqual(
    [],
  );
  expect(among(modules, ["src/inference/forward-pass", "src/sensitivity/search-layers"])).toEqual([]);
  expect(among(modules, ["msgpackr-extract"])).toEqual([]);
});

it("the library loads neither the client of the Hub nor signatures before they are used", async () => {
  const text = `await import(${JSON.stringify(`${root}dist/src/index.js`)})`;
  const modules = await modulesOf((options) => script(text, options));
  expect(modules).toContain("src/api/upload");
  const heavy = /^(@huggingface\/(hub|xetchunk-wasm)|undici|@sigstore\/.*|commander|cli-progress)$/;
  expect(modules.filter((module) => heavy.test(module))).toEqual([]);
});
