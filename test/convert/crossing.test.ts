/** From one dialect to another: scales, shards, replicas, side files, and what a source does not say. */
import { cpSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { synthesize } from "../../fixtures/generate/synthesize.ts";
import { hf } from "../../formats/hf/format.ts";
import { megatron } from "../../formats/megatron/format.ts";
import type { ConvertOptions } from "../../src/api/convert.ts";
import { convert } from "../../src/api/convert.ts";
import { plan } from "../../src/api/plan.ts";
import { verify } from "../../src/api/verify.ts";
import { matchModel } from "../../src/checkpoint/load.ts";
import { planConversion } from "../../src/convert/plan.ts";
import { runPlan } from "../../src/convert/run.ts";
import { bytesOf } from "../../src/core/dtype.ts";
import { fileStore } from "../../src/io/file.ts";
import { Staging } from "../../src/io/staging.ts";
import { poolSize, WorkerPool } from "../../src/workers/pool.ts";
import { watchedStore } from "../support/content.ts";
import { codeOf } from "../support/errors.ts";
import { arraysOf, filesOf, golden, workFolder } from "../support/goldens.ts";
import { smallModel } from "../support/small.ts";
import { copyOf, Editor, written } from "../support/verify/planted.ts";

const work = workFolder();
let counter = 0;
const fresh = () => join(work, String(counter++));
const quiet = { verify: "off", threads: 1 } as const;

async function warned(work: (options: Pick<ConvertOptions, "watch">) => Promise<unknown>): Promise<string[]> {
  const warnings: string[] = [];
  await work({ watch: (event) => event.type === "warning" && warnings.push(event.message) });
  return warnings;
}

describe("FP8 on its way to software that stores none", async () => {
  const source = await smallModel(fresh(), "ME*-", { n_groups: 2, moe_shared_expert_intermediate_size: 56 });
  const coded = fresh();
  await convert(source, coded, { ...quiet, to: "hf", dtype: "fp8-e4m3", recipe: "all-linear" });
  const decoded = fresh();
  await convert(coded, decoded, { ...quiet, to: "hf", dtype: "bf16" });

  it("is refused, unless it is to be decoded", async () => {
    for (const to of ["nemo2", "bridge", "megatron"]) {
      expect(await codeOf(() => convert(coded, fresh(), { ...quiet, to }))).toBe("PLAN_IMPOSSIBLE");
      expect(await codeOf(() => convert(source, fresh(), { ...quiet, to, dtype: "fp8-e4m3" }))).toBe(
        "PLAN_IMPOSSIBLE",
      );
    }
  });

  it.each([
    ["nemo2", {}],
    ["megatron", { tp: 2 }],
  ] as const)("is decoded for %s by the scale of each weight that is joined", async (to, ranks) => {
    const [there, back] = [fresh(), fresh()];
    const report = await convert(coded, there, { to, ...ranks, dtype: "bf16", verify: "bytes" });
    expect([report.exact, report.verification?.verdict]).toEqual([false, "within"]);
    await convert(there, back, { ...quiet, to: "hf" });
    const file = "model.safetensors";
    expect(await arraysOf(join(back, file))).toEqual(await arraysOf(join(decoded, file)));
    expect(readFileSync(join(back, "config.json"), "utf8")).not.toMatch(/quantization/);
  });
});

describe("shards", async () => {
  const source = await smallModel(fresh(), "M*-E", {
    n_routed_experts: 4,
    moe_shared_expert_intermediate_size: 64,
  });

  it("of columns are written in one pass over the source, with casts and without", async () => {
    for (const dtype of ["keep", "f32"] as const) {
      const { store, payloadBytes } = watchedStore(await fileStore(source));
      const checkpoint = await hf.read(store);
      const [writer, destination] = [megatron.writes!, fresh()];
      const options = { tp: 2, dtype, threads: 1 };
      const planned = await planConversion(matchModel(checkpoint, {}), { writer, options, version: "test" });
      const target = { destination, container: writer.container, overwrite: false, resume: false };
      await using staging = await Staging.open({ ...target, planId: planned.id, totalBytes: 0 });
      await using pool = new WorkerPool(poolSize(2 ** 26, 1));
      const running = { plan: planned, writer, staging, pool, allowOverflow: false, alone: false };
      await runPlan({ ...running, watch: () => {}, signal: undefined });
      const columns = checkpoint.tensors.filter(({ name }) => /(out|o|down)_proj\.weight$/.test(name));
      expect(columns.length).toBeGreaterThan(6);
      for (const tensor of columns) {
        expect(payloadBytes([tensor]), tensor.name).toBe(bytesOf(tensor.dtype, tensor.shape));
      }
    }
  });

  it("that are replicas must be the same bytes", async () => {
    const [there, stranger, other] = [fresh(), fresh(), fresh()];
    const config = JSON.parse(readFileSync(join(source, "config.json"), "utf8"));
    await synthesize(stranger, { config, seed: 2, maxShardBytes: 1e9 });
    await convert(source, there, { ...quiet, to: "megatron", tp: 2 });
    await convert(stranger, other, { ...quiet, to: "megatron", tp: 2 });
    const file = "iter_0000000/mp_rank_01/model_optim_rng.pt";
    cpSync(join(other, file), join(there, file));
    const at = { file, tensor: expect.stringMatching(/@1\.0\.0$/) };
    await expect(convert(there, fresh(), { ...quiet, to: "hf" })).rejects.toMatchObject({
      code: "REPLICA_DIFFERS",
      at,
    });
    // as a verdict: of two that should be the same, one does not agree with itself
    const report = await verify(source, there, { threads: 1, verify: "bytes" });
    expect(report.verdict).toBe("different");
    expect(JSON.stringify(report.rungs)).toContain("the two must be copies");
  });

  it.each([
    ["three ranks share no two groups", { tp: 3 }],
    ["more stages than layers", { pp: 5 }],
  ])("%s", async (_, ranks) => {
    expect(await codeOf(() => plan(source, fresh(), { to: "megatron", ...ranks }))).toBe("PLAN_IMPOSSIBLE");
  });

  it.each([
    ["hf", { tp: 2 }],
    ["packed", { pp: 2 }],
    ["nemo2", { pp: 2 }],
    ["bridge", { pp: 1 }],
  ])("%s has no such ranks", async (to, ranks) => {
    expect(await codeOf(() => plan(source, fresh(), { to, ...ranks }))).toBe("USAGE");
  });
});

describe("isologit.origin", async () => {
  const source = golden("tiny");
  const there = fresh();
  const { destination } = await convert(source, there, { to: "nemo2", verify: "bytes" });
  const kept = join(there, "isologit.origin");

  it("knows the model that it belongs to", () => {
    expect(readFileSync(join(kept, "root"), "utf8")).toBe(`${destination.root}\n`);
    expect(readFileSync(join(kept, "config.json"))).toEqual(readFileSync(join(source, "config.json")));
  });

  it("beside other weights is not restored", async () => {
    const [changed, back] = [fresh(), fresh()];
    cpSync(there, changed, { recursive: true });
    writeFileSync(join(changed, "isologit.origin/root"), `${"1".repeat(64)}\n`);
    const warnings = await warned((watch) => convert(changed, back, { ...watch, to: "hf", verify: "bytes" }));
    expect(warnings).toEqual([expect.stringMatching(/belongs to other weights/)]);
    expect(readFileSync(join(back, "config.json"))).not.toEqual(readFileSync(join(source, "config.json")));
    const generation = (folder: string) => readFileSync(join(folder, "generation_config.json"), "utf8");
    expect(JSON.parse(generation(back))).toEqual({ bos_token_id: 1, eos_token_id: 2 }); // as the tokenizer says
    expect(generation(back)).not.toBe(generation(source));
  });

  it("of another config is not restored", async () => {
    const [changed, back] = [fresh(), fresh()];
    cpSync(there, changed, { recursive: true });
    const file = join(changed, "isologit.origin/config.json");
    writeFileSync(file, readFileSync(file, "utf8").replaceAll("1e-05", "1e-06"));
    const warnings = await warned((watch) => convert(changed, back, { ...quiet, ...watch, to: "hf" }));
    expect(warnings).toContainEqual(expect.stringMatching(/belongs to another model/));
    expect(JSON.parse(readFileSync(join(back, "config.json"), "utf8")).layer_norm_epsilon).toBe(1e-5);
  });

  it("with a config that says another function is not restored", async () => {
    const [changed, back] = [fresh(), fresh()];
    cpSync(there, changed, { recursive: true });
    const file = join(changed, "isologit.origin/config.json");
    writeFileSync(file, readFileSync(file, "utf8").replace("{", '{"mamba_conv_bias": false,'));
    const warnings = await warned((watch) => convert(changed, back, { ...quiet, ...watch, to: "hf" }));
    expect(warnings).toContainEqual(
      expect.stringMatching(/config\.json is refused, .*mamba_conv_bias is false/),
    );
    expect(readFileSync(join(back, "config.json"), "utf8")).not.toContain("mamba_conv_bias");
  });

  it("travels on through formats that cannot say it either", async () => {
    const [bridge, ranks, back] = [fresh(), fresh(), fresh()];
    await convert(there, bridge, { ...quiet, to: "bridge" });
    await convert(bridge, ranks, { ...quiet, to: "megatron", tp: 2 });
    await convert(ranks, back, { ...quiet, to: "hf" });
    expect(filesOf(back)).toEqual(filesOf(source));
  });

  it("of a model whose prediction layers Transformers lost comes home, config and all", async () => {
    const editor = new Editor(await copyOf(golden("latent-moe")));
    for (const name of [...editor.copy.tensors.keys()]) if (name.startsWith("mtp.")) editor.drop(name);
    const [saved, bridge, back] = [written(editor.copy, fresh()), fresh(), fresh()];
    await convert(saved, bridge, { ...quiet, to: "bridge" });
    await convert(bridge, back, { ...quiet, to: "hf" });
    expect(filesOf(back)).toEqual(filesOf(saved));
  });

  it("lost, a model still comes home, with a config of its own", async () => {
    const [bare, back, again] = [fresh(), fresh(), fresh()];
    cpSync(there, bare, { recursive: true });
    rmSync(join(bare, "isologit.origin"), { recursive: true });
    const report = await convert(bare, back, { to: "hf", verify: "bytes" });
    expect(report.source.root).toBe(destination.root);
    const straight = await convert(source, again, { to: "hf", verify: "bytes" });
    expect(straight.source.root).toBe(destination.root);
  });
});

describe("what a record says beside the settings", () => {
  const source = golden("nemo2-tiny/hf");
  const said = (change: (yaml: string) => string) => {
    const folder = fresh();
    cpSync(golden("nemo2-tiny"), folder, { recursive: true, filter: (path) => path !== source });
    const file = join(folder, "context/model.yaml");
    writeFileSync(file, change(readFileSync(file, "utf8")));
    return folder;
  };

  it("is told by convert and verify where another dialect cannot say it", async () => {
    const scaled = said((yaml) => yaml.replace(/(query_key_layer_scaling: )false/, "$1true\n  softcap: 30"));
    const told = [
      expect.stringMatching(/engines may use: softcap$/),
      expect.stringMatching(/apply_query_key_layer_scaling is true: .* the same function/),
    ];
    const warnings = await warned((watch) => convert(scaled, fresh(), { ...quiet, ...watch, to: "hf" }));
    expect(warnings).toEqual(expect.arrayContaining(told));
    const { verdict, findings } = await verify(source, scaled, { threads: 1, verify: "bytes" });
    expect(verdict).toBe("same");
    expect(findings).toEqual(expect.arrayContaining(told));
  });

  it("is told of a Hugging Face config too, and only where it gets lost", async () => {
    const folder = fresh();
    cpSync(source, folder, { recursive: true });
    const file = join(folder, "config.json");
    writeFileSync(file, readFileSync(file, "utf8").replace("{", '{"softcap": 30,'));
    const warnings = (to: string) => warned((watch) => convert(folder, fresh(), { ...quiet, ...watch, to }));
    expect(await warnings("nemo2")).toEqual([expect.stringMatching(/engines may use: softcap$/)]);
    expect(await warnings("packed")).toEqual([]);
  });

  it.each([
    ["softmax_scale", "1.0", "UNSUPPORTED", /softmax_scale is 1:/],
    ["layernorm_epsilon", "1e-06", "CONFIG_INVALID", /layernorm_epsilon is 0.000001 in/],
    [
      "num_query_groups",
      "4",
      "CONFIG_INVALID",
      /num_query_groups is 4 in context\/io.json, which is loaded, and 2/,
    ],
    ["hybrid_override_pattern", '"M-M*-M-M*"', "CONFIG_INVALID", /"M-M\*-M-M\*" in context\/io.json/],
    ["kv_channels", "null", "no error", /^$/],
    ["seq_length", "8192", "no error", /^$/],
  ] as const)(
    "is refused where NeMo was passed another %s than model.yaml says",
    async (key, value, code, message) => {
      const folder = said((yaml) => yaml);
      const file = join(folder, "context/io.json");
      const graph = JSON.parse(readFileSync(file, "utf8"));
      const { items } = graph.objects.nemotron_hconfig8_b_1;
      const name = `Attr(name='${key}')`;
      const leaf = { type: "leaf", value: JSON.parse(value), paths: [] };
      graph.objects.nemotron_hconfig8_b_1.items = [
        ...items.filter(([one]: readonly [string]) => one !== name),
        [name, leaf],
      ];
      writeFileSync(file, JSON.stringify(graph));
      const planned = () => plan(folder, fresh(), { to: "hf" });
      expect(await codeOf(planned)).toBe(code);
      if (code === "no error") return;
      await expect(planned()).rejects.toMatchObject({ message: expect.stringMatching(message) });
      await expect(planned()).rejects.toMatchObject({ at: { file: "context/io.json" } });
    },
  );

  it("is refused where it changes the function", async () => {
    const scaled = said((yaml) => yaml.replace("softmax_scale: null", "softmax_scale: 1.0"));
    expect(await codeOf(() => convert(scaled, fresh(), { ...quiet, to: "hf" }))).toBe("UNSUPPORTED");
    expect(await codeOf(() => verify(source, scaled, { threads: 1 }))).toBe("UNSUPPORTED");
  });
});

describe("what a source does not say", async () => {
  const source = await smallModel(fresh(), "M*-", { vocab_size: 100 });
  writeFileSync(join(source, "chat_template.jinja"), "{{ messages }}");
  const padded = fresh();
  await convert(source, padded, { ...quiet, to: "megatron" });
  rmSync(join(padded, "isologit.origin"), { recursive: true });

  it("a like model does, side files included", async () => {
    const back = fresh();
    await convert(padded, back, { ...quiet, to: "hf", like: source });
    const names = (folder: string) => readdirSync(folder).sort();
    expect(names(back)).toEqual(names(source));
    expect(readFileSync(join(back, "config.json"))).toEqual(readFileSync(join(source, "config.json")));
  });

  it("its own config is not overruled", async () => {
    expect(await codeOf(() => plan(padded, fresh(), { to: "hf", vocabSize: 99 }))).toBe("USAGE");
    const { padding } = await plan(padded, fresh(), { to: "hf", vocabSize: 100 });
    expect(padding).toEqual({ cut: 28, added: 0 });
    expect((await plan(source, fresh(), { to: "nemo2", tp: 2 })).padding).toEqual({ cut: 0, added: 156 });
  });

  it("a folder without iterations has none to choose", async () => {
    expect(await codeOf(() => plan(source, fresh(), { to: "packed", iteration: 3 }))).toBe("USAGE");
    expect(await codeOf(() => plan(padded, fresh(), { to: "hf", iteration: 3 }))).toBe("NOT_FOUND");
  });
});
