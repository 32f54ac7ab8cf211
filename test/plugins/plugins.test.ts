/** Plug-ins: every function knows their parts, every report names them, and nothing is loaded that was not named. */
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { plugin } from "../../fixtures/plugin/plugin.js";
import { check } from "../../src/api/check.ts";
import { convert } from "../../src/api/convert.ts";
import { diff } from "../../src/api/diff.ts";
import { doctor } from "../../src/api/doctor.ts";
import { formats } from "../../src/api/formats.ts";
import { generate } from "../../src/api/generate.ts";
import { inspect } from "../../src/api/inspect.ts";
import { logits } from "../../src/api/logits.ts";
import { plan } from "../../src/api/plan.ts";
import { loadPlugins } from "../../src/api/plugins.ts";
import { recast } from "../../src/api/recast.ts";
import { verify } from "../../src/api/verify.ts";
import { decodeCertificate } from "../../src/certificate/certificate.ts";
import { CERTIFICATE_FILE } from "../../src/core/checkpoint.ts";
import type { Plugin, PluginsReport } from "../../src/plugins/plugin.ts";
import { kernelsOf, registryOf } from "../../src/plugins/registry.ts";
import { sarifText } from "../../src/report/sarif.ts";
import { factsOf } from "../../src/report/subject.ts";
import { errorOf } from "../support/errors.ts";
import { workFolder } from "../support/goldens.ts";
import { start } from "../support/program.ts";

const work = workFolder();
const example = new URL("../../fixtures/plugin/", import.meta.url).pathname;
const model = join(example, "model");
const reference = join(example, "reference.safetensors");
const QUICK = { backend: "wasm", threads: 1, memoryBytes: 64 * 1024 * 1024 } as const;

type Options = typeof QUICK & { readonly plugins?: readonly Plugin[] };

/** Every function that opens a checkpoint. */
const FUNCTIONS: Readonly<Record<string, (options: Options, out: string) => Promise<PluginsReport>>> = {
  inspect: (options) => inspect(model, options),
  check: (options) => check(model, options),
  diff: (options) => diff(model, model, options),
  plan: (options, out) => plan(model, out, { ...options, to: "packed" }),
  convert: (options, out) => convert(model, out, { ...options, to: "packed", tokens: 4 }),
  recast: (options, out) => recast(model, out, { ...options, dtype: "bf16", tokens: 4 }),
  verify: (options) => verify(model, model, { ...options, tokens: 4 }),
  "verify A": (options) => verify(model, undefined, { ...options, reference }),
  logits: (options, out) => logits(model, { ...options, out, ids: [1, 2] }),
  generate: (options) => generate(model, { ...options, ids: [1, 2], tokens: 2 }),
};

describe.each(Object.entries(FUNCTIONS))("%s", (name, call) => {
  it("knows the family of a plug-in, and its report names the plug-in", async () => {
    const report = await call({ ...QUICK, plugins: [plugin] }, join(work, `${name}.out`));
    expect(report.plugins).toEqual(["gated-mlp 1.0.0"]);
  });

  it("does not know the family without the plug-in", async () => {
    const without = call(QUICK, join(work, `${name}.none`)).then(
      (report) => report,
      ({ code }: { code?: unknown }) => ({ code }),
    );
    const unknown = {
      inspect: { family: null },
      check: {
        ok: false,
        findings: expect.arrayContaining([expect.objectContaining({ rule: "family-unknown" })]),
      },
    }[name];
    expect(await without).toMatchObject(unknown ?? { code: "FAMILY_UNKNOWN" });
    expect(await without).not.toHaveProperty("plugins");
  });
});

it("the family computes what torch computed", async () => {
  const { verdict, rungs } = await verify(model, undefined, { ...QUICK, reference, plugins: [plugin] });
  expect(verdict).toBe("same");
  expect(rungs.map(({ rung }) => rung)).toEqual(["reference"]);
});

it("a conversion is proved and certified, and the certificate names the plug-in", async () => {
  const out = join(work, "certified");
  const report = await convert(model, out, { ...QUICK, to: "hf", dtype: "fp8-e4m3", plugins: [plugin] });
  expect(report.verification?.verdict).toBe("within");
  const certificate = decodeCertificate(readFileSync(join(out, CERTIFICATE_FILE)), out);
  expect(certificate.plugins).toEqual(["gated-mlp 1.0.0"]);
  expect((await verify(out, undefined, { ...QUICK, plugins: [plugin] })).verdict).toBe("same");
  expect(factsOf({ command: "convert", report })).toContainEqual(["plug-in", "gated-mlp 1.0.0"]);
  expect(JSON.parse(sarifText({ command: "convert", report }, work)).runs[0].properties).toMatchObject({
    plugins: ["gated-mlp 1.0.0"],
  });
});

it("a quantization dialect of a plug-in describes what is cast, and its rules are those of the engines", async () => {
  const cast = { ...QUICK, to: "hf", dtype: "fp8-e4m3", plugins: [plugin] } as const;
  const out = join(work, "fbgemm");
  const report = await convert(model, out, { ...cast, quantDialect: "fbgemm-fp8", quantScales: "row" });
  expect(report.verification).toMatchObject({ verdict: "within" });
  const { quantization_config } = JSON.parse(readFileSync(join(out, "config.json"), "utf8"));
  expect(quantization_config).toMatchObject({
    quant_method: "fbgemm_fp8",
    modules_to_not_convert: ["lm_head"],
  });
  const certificate = decodeCertificate(readFileSync(join(out, CERTIFICATE_FILE)), out);
  expect(certificate.conversion).toMatchObject({ quantDialect: "fbgemm-fp8" });

  // engines that know this method read other codes
  const [dialect] = plugin.quantizationDialects!;
  const describe: NonNullable<typeof dialect>["describe"] = (quantized) => {
    const { config, ...rest } = dialect!.describe(quantized);
    return { ...rest, config: { ...config, quant_method: "gptq" } };
  };
  const plugins = [{ ...plugin, quantizationDialects: [{ ...dialect!, describe }] }];
  const wrong = { ...cast, plugins, quantDialect: "fbgemm-fp8", quantScales: "row" } as const;
  const { verification } = await convert(model, join(work, "wrong"), wrong);
  expect(verification?.verdict).toBe("different");

  const unknown = errorOf(() => plan(model, "none", { ...cast, quantDialect: "gptq" }));
  expect(await unknown).toMatchObject({
    code: "USAGE",
    message: '`quantDialect` is "gptq", expected one of compressed-tensors, modelopt, fp8, fbgemm-fp8',
  });
});

it("another version of a plug-in makes another plan", async () => {
  const idOf = async (version: string) =>
    (await plan(model, "out", { to: "packed", plugins: [{ ...plugin, version }] })).id;
  expect(await idOf("1.0.0")).toBe(await idOf("1.0.0"));
  expect(await idOf("1.0.1")).not.toBe(await idOf("1.0.0"));
});

it("formats and doctor list the parts of plug-ins", async () => {
  const listed = formats({ plugins: [plugin] });
  expect(listed.families.map(({ id }) => id)).toContain("gated-mlp");
  expect(listed.plugins).toEqual(["gated-mlp 1.0.0"]);
  expect(formats()).not.toHaveProperty("plugins");
  const { kernels = [] } = await doctor({ ...QUICK, kernels: true, plugins: [plugin] });
  expect(kernels.find(({ id }) => id === "silu-gate")).toMatchObject({ backend: "wasm", ok: true });
});

it("a kernel without a shader keeps its family from a GPU", async () => {
  const error = await errorOf(() => logits(model, { out: "none", plugins: [plugin], backend: "webgpu" }));
  expect(error).toMatchObject({ code: "NOT_AVAILABLE", exit: 2 });
  expect(error.message).toContain("silu-gate has no shader");
  const { device } = await generate(model, { ids: [1], tokens: 1, threads: 1, plugins: [plugin] });
  expect(device).toBe(
    "WASM SIMD, 1 thread (no GPU: the kernel silu-gate has no shader, so no GPU can run it)",
  );
});

describe("a plug-in is refused", () => {
  const [family] = plugin.families!;
  const wrong: Readonly<Record<string, readonly [plugins: readonly unknown[], message: string]>> = {
    "that is no object": [[null], "the plug-in is null, expected an object"],
    "without a name": [[{}], "the plug-in has nothing as `name`, expected a text"],
    "with a name that no shell takes as it is": [[{ name: "a; b" }], "the plug-in has text as `name`"],
    "with a member that it cannot have": [
      [{ name: "a", familes: [] }],
      "the plug-in has the unknown member `familes`, expected formats, families, kernels, quantizationDialects",
    ],
    "with a part that is no list": [
      [{ name: "a", families: family }],
      "the plug-in has object as `families`, expected a list",
    ],
    "with a format that lacks a member": [
      [{ name: "a", formats: [{ id: "zip", title: "zip", detect() {} }] }],
      "zip of formats has nothing as `read`, expected a function",
    ],
    "with a writer that lacks a member": [
      [{ name: "a", formats: [{ id: "zip", title: "zip", detect() {}, read() {}, writes: {} }] }],
      "writes of zip of formats has nothing as `dialect`, expected a text",
    ],
    "with a family that lacks a member": [
      [{ name: "a", families: [{ ...family, forward: { ...family!.forward, head: undefined } }] }],
      "forward of gated-mlp of families has nothing as `head`, expected a list",
    ],
    "with a dialect that lacks a member": [
      [{ name: "a", families: [{ ...family, dialects: [{ id: "hf", rules: 3 }] }] }],
      "hf of dialects has 3 as `rules`, expected a list",
    ],
    "with a kernel that lacks a member": [
      [{ name: "a", kernels: [{ ...plugin.kernels![0], compute: undefined }] }],
      "silu-gate of kernels has nothing as `compute`, expected a function",
    ],
    "with a quantization dialect that lacks a member": [
      [{ name: "a", quantizationDialects: [{ id: "b" }] }],
      "b of quantizationDialects has nothing as `scaleTensor`, expected a function",
    ],
    "with an id that no flag takes as it is": [
      [{ name: "a", quantizationDialects: [{ id: "b c" }] }],
      "b c of quantizationDialects has an id that is not made of letters",
    ],
    "with a quantization dialect of this version": [
      [{ name: "a", quantizationDialects: [{ ...plugin.quantizationDialects![0], id: "fp8" }] }],
      "a has fp8 in `quantizationDialects`, and isologit has that id already",
    ],
    "with an id of this version": [
      [{ name: "a", families: [{ ...family, id: "nemotron-h" }] }],
      "a has nemotron-h in `families`, and isologit has that id already",
    ],
    "with an id of another plug-in": [
      [plugin, { name: "a", families: [family] }],
      "a has gated-mlp in `families`, and gated-mlp has that id already",
    ],
    "with the name of another plug-in": [[{ name: "a" }, { name: "a" }], "a is the name of two plug-ins"],
  };
  it.each(Object.entries(wrong))("%s", async (_, [plugins, message]) => {
    const error = await errorOf(async () => registryOf({ plugins: plugins as Plugin[] }));
    expect(error).toMatchObject({ code: "PLUGIN_INVALID", exit: 2 });
    expect(error.message).toContain(message);
    expect(error.next).not.toBe("");
  });

  it("with a kernel of this version", async () => {
    const plugins = [{ name: "a", kernels: [{ ...plugin.kernels![0]!, id: "rms-norm" }] }];
    const error = await errorOf(() => kernelsOf({ plugins }));
    expect(error).toMatchObject({ code: "PLUGIN_INVALID", exit: 2 });
    expect(error.message).toContain("a has rms-norm in `kernels`, and isologit has that id already");
  });
});

describe("a name of --plugin", () => {
  const modules = mkdtempSync(join(work, "modules-"));
  const moduleOf = (name: string, text: string): string => {
    const file = join(modules, name);
    mkdirSync(join(file, ".."), { recursive: true });
    writeFileSync(file, text);
    return file;
  };

  it("is a path, and the export is `plugin` or the default", async () => {
    const named = moduleOf("named.mjs", "export const plugin = { name: 'named' };");
    const usual = moduleOf("usual.mjs", "export default { name: 'usual' };");
    expect(await loadPlugins([named, usual])).toEqual([{ name: "named" }, { name: "usual" }]);
  });

  const at = (name: string) => join(modules, name);
  it.each([
    ["no file", at("none.mjs"), null, "NOT_FOUND", "no such file or folder"],
    ["no package", "no-such-package", null, "NOT_FOUND", "no such package is installed here"],
    [
      "without the export",
      at("other.mjs"),
      "export const x = 1;",
      "PLUGIN_INVALID",
      "it exports x, expected `plugin`",
    ],
    [
      "that fails",
      at("fails.mjs"),
      "throw new Error('broken');",
      "PLUGIN_INVALID",
      "it cannot be loaded: broken",
    ],
    [
      "with an import that is not there",
      at("lost.mjs"),
      "import './lost-part.mjs';",
      "PLUGIN_INVALID",
      "lost-part.mjs",
    ],
    [
      "with a part of no use",
      at("part.mjs"),
      "export const plugin = { name: 'a', kernels: [{}] };",
      "PLUGIN_INVALID",
      "number 1 of kernels has nothing as `id`",
    ],
  ])("%s is refused with its file", async (_, name, text, code, message) => {
    if (text !== null) moduleOf(name.slice(modules.length + 1), text);
    const error = await errorOf(() => loadPlugins([name]));
    expect(error).toMatchObject({ code, at: { file: name } });
    expect(error.message).toContain(message);
  });

  it("is a package of the current folder; the program prints what it loaded", async () => {
    const [packed, file] = ["node_modules/hidden", "node_modules/hidden/package.json"];
    moduleOf(file, '{ "name": "hidden", "type": "module", "exports": { "import": "./hidden.js" } }');
    moduleOf(`${packed}/hidden.js`, "export const plugin = { name: 'hidden' };");
    moduleOf("node_modules/toy/package.json", '{ "name": "toy", "type": "module", "main": "toy.js" }');
    moduleOf(
      "node_modules/toy/toy.js",
      `export { plugin } from ${JSON.stringify(join(example, "plugin.js"))};`,
    );
    const run = (...args: readonly string[]) => start(args, { cwd: modules }).ended;
    const text = await run("inspect", model, "--plugin", "toy");
    expect(text.stdout).toMatch(/^family +gated-mlp$/m);
    expect(text.stdout).toMatch(/^plug-in {2}gated-mlp 1\.0\.0$/m);
    const json = await run("inspect", model, "--plugin", "toy", "--json");
    expect(JSON.parse(json.stdout)).toMatchObject({ family: "gated-mlp", plugins: ["gated-mlp 1.0.0"] });
    const hidden = await run("inspect", model, "--plugin", "hidden");
    expect(hidden).toMatchObject({ status: 4 });
    expect(hidden.stderr).toContain("give the path of its module");
    const twice = await run("inspect", model, "--plugin", "toy", "--plugin", join(example, "plugin.js"));
    expect(twice).toMatchObject({ status: 2 });
    expect(twice.stderr).toContain("PLUGIN_INVALID");
  });

  it("is not taken from a file that lies in the folder, nor from any file of the checkpoint", async () => {
    const folder = mkdtempSync(join(work, "downloaded-"));
    const mark = join(folder, "ran");
    const code = `import { writeFileSync } from "node:fs"; writeFileSync(${JSON.stringify(mark)}, ""); export default { name: "a" };`;
    writeFileSync(join(folder, "evil.mjs"), code);
    writeFileSync(join(folder, "config.json"), '{ "model_type": "gated_mlp", "plugin": "./evil.mjs" }');
    writeFileSync(join(folder, "isologit.yaml"), "plugin: ./evil.mjs\n");
    const { status, stderr } = await start(["inspect", "."], { cwd: folder }).ended;
    expect(status).toBe(2);
    expect(stderr).toContain("plugin is accepted from a file that --config names, and not from here");
    expect(() => readFileSync(mark)).toThrow("ENOENT");
    await start(["inspect", ".", "--config", "isologit.yaml"], { cwd: folder }).ended;
    expect(readFileSync(mark, "utf8")).toBe("");
  });
});
