import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { type ConfigRecord, isRecord } from "../../formats/codec/yaml.ts";
import { type FiddleConfig, fiddleText, parseFiddle } from "../../formats/nemo2/fiddle.ts";
import { codeOf } from "../support/errors.ts";
import { golden } from "../support/goldens.ts";

const SSM = "nemo.collections.llm.gpt.model.ssm";
const TOKENIZER = "nemo.collections.common.tokenizers.huggingface.auto_tokenizer";
const CONFIG: readonly (readonly [string, string | number])[] = [
  ["tensor_model_parallel_size", 1],
  ["num_layers", 9],
  ["hidden_size", 64],
  ["num_attention_heads", 8],
  ["num_query_groups", 2],
  ["ffn_hidden_size", 96],
  ["kv_channels", 16],
  ["mamba_state_dim", 16],
  ["mamba_head_dim", 16],
  ["mamba_num_groups", 2],
  ["mamba_num_heads", 8],
  ["hybrid_override_pattern", "M-M*-M-*M"],
  ["seq_length", 4096],
  ["vocab_size", 500],
];
const CONTEXT: FiddleConfig = {
  module: "nemo.lightning.io.pl",
  name: "TrainerContext",
  args: [
    [
      "model",
      {
        module: SSM,
        name: "MambaModel",
        args: [
          ["config", { module: SSM, name: "NemotronHConfig8B", args: CONFIG }],
          [
            "tokenizer",
            {
              module: TOKENIZER,
              name: "AutoTokenizer",
              args: [
                ["pretrained_model_name", "nemo_tokenizer"],
                ["trust_remote_code", true],
              ],
            },
          ],
        ],
      },
    ],
    ["trainer", { module: "nemo.lightning.pytorch.trainer", name: "Trainer", args: [] }],
    ["extra", {}],
  ],
};
const real: ConfigRecord = JSON.parse(readFileSync(golden("nemo2-tiny/context/io.json"), "utf8"));

describe("io.json", () => {
  it("is written as NeMo and fiddle wrote it, names and order included", () => {
    expect(fiddleText(CONTEXT)).toBe(JSON.stringify(real));
  });

  it("is read as arguments and classes", () => {
    const { model, trainer } = parseFiddle(real, {}) as Record<string, ConfigRecord>;
    expect(trainer).toEqual({ _target_: "nemo.lightning.pytorch.trainer.Trainer" });
    expect(model?._target_).toBe(`${SSM}.MambaModel`);
    expect(model?.config).toEqual({ _target_: `${SSM}.NemotronHConfig8B`, ...Object.fromEntries(CONFIG) });
    expect(isRecord(model?.tokenizer) && model.tokenizer.pretrained_model_name).toBe("nemo_tokenizer");
  });

  it("leaves out what is pickled beside it", () => {
    const type = { type: "pyref", module: "nemo.lightning.io.artifact.pickle", name: "PickleArtifact" };
    const graph = withConfigItem(["Attr(name='optim')", { type, items: [], metadata: null }]);
    const { model } = parseFiddle(graph, {}) as Record<string, Record<string, ConfigRecord>>;
    expect(model?.config).toHaveProperty("optim", undefined);
    expect(model?.config?.hidden_size).toBe(64);
  });

  it.each([
    ["no graph", {}, "CONFIG_INVALID"],
    ["a lost reference", { root: { type: "ref", key: "x" }, objects: {} }, "CONFIG_INVALID"],
    ["an inherited reference", { root: { type: "ref", key: "toString" }, objects: {} }, "CONFIG_INVALID"],
    ["a graph that contains itself", looped(), "LIMIT_EXCEEDED"],
    ["references doubled forty times", doubled(40), "LIMIT_EXCEEDED"],
    ["an item without a name", withConfigItem([1, 2]), "CONFIG_INVALID"],
  ])("%s is refused", async (_, graph, code) => {
    expect(await codeOf(() => parseFiddle(graph as ConfigRecord, {}))).toBe(code);
  });
});

function withConfigItem(item: unknown): ConfigRecord {
  const copy = structuredClone(real) as { objects: Record<string, { items: unknown[] }> };
  copy.objects.nemotron_hconfig8_b_1!.items.push(item);
  return copy as unknown as ConfigRecord;
}

function list(...keys: string[]): ConfigRecord {
  const items = keys.map((key, i) => [`Index(index=${i})`, { type: "ref", key }]);
  return { type: { type: "pyref", module: "builtins", name: "list" }, items, metadata: null };
}

function looped(): ConfigRecord {
  return { root: { type: "ref", key: "a" }, objects: { a: list("a") } };
}

function doubled(times: number): ConfigRecord {
  const objects: Record<string, unknown> = { n0: list() };
  for (let i = 1; i <= times; i++) objects[`n${i}`] = list(`n${i - 1}`, `n${i - 1}`);
  return { root: { type: "ref", key: `n${times}` }, objects };
}
