/** Folders that the program writes, loaded by Transformers itself: every key met, every weight the same, our logits. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { arraysOf, filesOf, golden, idsOf, workFolder } from "../support/goldens.ts";
import { absent, type Distances, judge, record, titled } from "./judge.ts";
import { isologit, published } from "./program.ts";

const work = workFolder();
const { ask } = judge();
const versions = absent === null ? await ask<Record<string, string>>("versions") : {};
const LIMIT = 2e-5;
const LENGTHS = ["len1", "len17", "len130"] as const;

/** Each writes one more folder from those before it: [name, source, what the program is told]. */
const PLAIN: readonly (readonly [string, string, readonly string[]])[] = [
  ["packed.isologit", "", ["convert"]],
  ["back", "packed.isologit", ["convert", "--to", "hf"]],
  ["shards", "", ["convert", "--to", "hf", "--max-shard-size", "100KB"]],
  ["f32", "", ["recast", "--dtype", "f32"]],
  ["f16", "", ["recast", "--dtype", "f16"]],
  ["bf16", "f32", ["recast", "--dtype", "bf16"]],
  ["fp8", "", ["recast", "--dtype", "fp8-e4m3", "--keep-ends", "0"]],
  ["fp8-bf16", "fp8", ["recast", "--dtype", "bf16"]],
];

const FP8: readonly (readonly [string, readonly string[]])[] = [
  ["ends-0", ["--dtype", "fp8-e4m3", "--keep-ends", "0"]],
  ["ends-1", ["--dtype", "fp8-e4m3", "--keep-ends", "1"]],
  ["ends-2", ["--dtype", "fp8-e4m3", "--keep-ends", "2"]],
  ["all-linear", ["--dtype", "fp8-e4m3", "--recipe", "all-linear"]],
  ["e5m2", ["--dtype", "fp8-e5m2"]],
];

if (absent === null) for (const [what, version] of Object.entries(versions)) record(what, version);

/** Our logits of a folder against those of Transformers, for every prompt length. */
async function worstOf(folder: string, prompts: string): Promise<Distances> {
  const recorded = await arraysOf(join(prompts, "reference.safetensors"));
  const ours = LENGTHS.map((key) => {
    const out = `${folder}-${key}.safetensors`;
    isologit(
      "logits",
      folder,
      "--out",
      out,
      "--ids",
      idsOf(recorded.get(`input_ids.${key}`)!).join(),
      "--overwrite",
    );
    return [key, out];
  });
  const measured = await ask<Record<string, Distances>>("logits", {
    folder,
    prompts: Object.fromEntries(ours),
  });
  const [first, ...others] = Object.values(measured);
  return others.reduce((a, b) => (b.rel_l2 > a.rel_l2 ? b : a), first!);
}

const shown = ({ max_abs, rel_l2 }: Distances) =>
  `rel L2 ${rel_l2.toExponential(1)}, max abs ${max_abs.toExponential(1)}`;

interface Config {
  readonly quantization: { readonly quant_method?: string };
  readonly time_step_limit: readonly string[];
}

const MODELS = ["tiny", "tiny-t5", "sharded"] as const;
const promptsOf = (name: string) => golden(name === "tiny-t5" ? "tiny" : name);

describe.skipIf(absent !== null).each(MODELS)(titled("%s, unquantised"), (name) => {
  const source = join(work, name);
  const at = (folder: string) => join(work, `${name}-${folder}`);
  beforeAll(() => {
    published(name, work);
    for (const [to, from, [command, ...options]] of PLAIN) {
      isologit(command!, from === "" ? source : at(from), at(to), ...options, "--verify", "off");
    }
  });

  it.each(["back", "shards", "f32", "f16", "bf16", "fp8-bf16"])("%s", async (folder) => {
    const dtype = { f32: "float32", f16: "float16" }[folder] ?? "bfloat16";
    expect(await ask("loads", { folder: at(folder) })).toEqual({ faults: {}, other: [], dtype });
    const config = { class: "NemotronHConfig", dtype, time_step_limit: ["0.0", "inf"], quantization: null };
    expect(await ask("config", { folder: at(folder) })).toMatchObject(config);
    const worst = await worstOf(at(folder), promptsOf(name));
    record(`${name} ${folder}`, `every key; ${shown(worst)}`);
    expect(worst.rel_l2).toBeLessThanOrEqual(LIMIT);
  });

  it("packed and back is the source to the byte", () => {
    expect(filesOf(at("back"))).toEqual(filesOf(source));
  });
});

describe.skipIf(absent !== null).each(MODELS)(titled("%s, FP8"), (name) => {
  const source = join(work, name);
  const at = (folder: string) => join(work, `${name}-${folder}`);
  beforeAll(() => {
    published(name, work);
    for (const [to, options] of FP8) isologit("recast", source, at(to), ...options, "--verify", "off");
  });

  it.each(FP8.map(([folder]) => folder))("%s", async (folder) => {
    const { status, said } = await ask<{ status: number; said: string[] }>("fp8", {
      source,
      folder: at(folder),
      dtype: folder === "e5m2" ? "e5m2" : "e4m3",
    });
    // What the check holds against a folder by intent: a head that was asked for, a method that E5M2 does not have.
    const meant = folder === "e5m2" ? /quant_method|no ignore entry/ : /lm_head.weight: must never/;
    const errors = said.filter((line) => line.startsWith("ERROR"));
    expect(errors.filter((line) => !meant.test(line))).toEqual([]);
    if (folder.startsWith("ends")) expect(status).toBe(0);
    expect(said[0]).toContain('"bytes_mismatch": 0');
    // config.json is read by AutoConfig as it was, what is quantised aside: a bare Infinity still stands in it
    const method = folder === "e5m2" ? undefined : "compressed-tensors";
    const { quantization, time_step_limit } = await ask<Config>("config", { folder: at(folder) });
    expect([quantization.quant_method, time_step_limit]).toEqual([method, ["0.0", "inf"]]);
    const infinite = (folder: string) =>
      readFileSync(join(folder, "config.json"), "utf8").match(/.*Infinity.*/g);
    expect(infinite(at(folder))).toEqual(infinite(source));
    const worst = await worstOf(at(folder), promptsOf(name));
    record(`${name} ${folder}`, `every byte torch's; ${shown(worst)}`);
    expect(worst.rel_l2).toBeLessThanOrEqual(LIMIT);
  });

  it("E5M2, which no engine reads, Transformers refuses", async () => {
    await expect(ask("loads", { folder: at("e5m2") })).rejects.toThrow("no `quant_method`");
  });

  const none = versions["compressed-tensors"] ? null : "skipped: PYTHONPATH has no compressed-tensors";
  it.skipIf(none !== null).each(["ends-0", "ends-1", "ends-2"])(
    titled("%s by compressed-tensors", none),
    async (folder) => {
      const tokens = Array.from({ length: 17 }, (_, i) => (i * 37) % 512);
      const { faults, other, ...distances } = await ask<Distances & { faults: object; other: string[] }>(
        "decompresses",
        { folder: at(folder), tokens },
      );
      record(`${name} ${folder} by compressed-tensors`, `every key; ${shown(distances)}`);
      expect({ faults, other, rel_l2: distances.rel_l2 }).toEqual({ faults: {}, other: [], rel_l2: 0 });
    },
  );
});

describe.skipIf(absent !== null).each(["moe", "latent-moe"])(titled("%s, FP8"), (name) => {
  it("keeps to torch, and loads with every key", async () => {
    const [source, folder] = [published(name, work), join(work, `${name}-fp8`)];
    isologit("recast", source, folder, "--dtype", "fp8-e4m3", "--verify", "bytes");
    expect(await ask("fp8", { source, folder, dtype: "e4m3" })).toMatchObject({ status: 0 });
    const plain = join(work, `${name}-plain`);
    isologit("recast", folder, plain, "--dtype", "bf16", "--verify", "bytes");
    expect(await ask("loads", { folder: plain })).toMatchObject({ faults: {}, other: [] });
    expect(await ask("strict", { folder })).toBeGreaterThan(50);
    record(`${name} fp8`, "every byte torch's; every key");
  });
});
