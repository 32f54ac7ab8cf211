import { describe, expect, it } from "vitest";
import { hf } from "../../formats/hf/format.ts";
import type { Checkpoint } from "../../src/core/checkpoint.ts";
import { families } from "../../src/families/index.ts";
import { matchRoles } from "../../src/families/match.ts";
import { nemotronH } from "../../src/families/nemotron-h/index.ts";
import { fileStore } from "../../src/io/file.ts";
import { codeOf, errorOf } from "../support/errors.ts";

const golden = async (name: string): Promise<Checkpoint> =>
  hf.read(await fileStore(new URL(`../../fixtures/nemotron-h/${name}`, import.meta.url).pathname));
const match = (checkpoint: Checkpoint) => matchRoles(checkpoint, families, new Set());
const withConfig = (checkpoint: Checkpoint, change: Record<string, unknown>): Checkpoint => ({
  ...checkpoint,
  config: { ...checkpoint.config, ...change },
});

describe("every tensor of every golden has a role, and every role a tensor", () => {
  it.each([
    ["tiny", 58],
    ["tiny-t5", 58],
    ["sharded", 82],
    ["moe", 133],
    ["latent-moe", 199],
  ] as const)("%s", async (name, count) => {
    const checkpoint = await golden(name);
    const { roles, holds } = match(checkpoint);
    expect(holds.size).toBe(checkpoint.tensors.length);
    expect(roles.size).toBe(checkpoint.tensors.length);
    expect(roles.size).toBe(count);
  });

  it("both config styles give the same settings", async () => {
    expect(match(await golden("tiny-t5")).settings).toEqual(match(await golden("tiny")).settings);
  });

  it("prediction layers (mtp.*) are roles too", async () => {
    const { roles } = match(await golden("latent-moe"));
    expect([...roles.keys()].filter((key) => key.startsWith("mtp.")).length).toBe(40);
    expect(roles.has("mtp.0.mtp.join")).toBe(true);
    expect(roles.has("mtp.1.mtp.final_norm")).toBe(true);
  });

  it("a checkpoint that lost all prediction layers, as Transformers saves it, is a model without them", async () => {
    const whole = await golden("latent-moe");
    const without = (lost: (name: string) => boolean) =>
      match({ ...whole, tensors: whole.tensors.filter(({ name }) => !lost(name)) });
    const { roles, settings, layers, notes } = without((name) => name.startsWith("mtp."));
    expect(roles.size).toBe(159);
    expect(settings).not.toHaveProperty("mtpSteps");
    expect(layers.every(({ stack }) => stack === "main")).toBe(true);
    expect(notes).toEqual([
      "num_nextn_predict_layers is 1, but the checkpoint has no mtp.* weight: the model is read without prediction layers",
    ]);
    expect(await codeOf(async () => without((name) => name === "mtp.layers.0.eh_proj.weight"))).toBe(
      "TENSOR_MISSING",
    );
    expect(await codeOf(async () => without((name) => name.startsWith("mtp.layers.1.")))).toBe(
      "TENSOR_MISSING",
    );
  });
});

describe("what does not fit is refused by name", () => {
  const refused = async (change: Record<string, unknown>, name: string) =>
    codeOf(async () => match(withConfig(await golden(name), change)));

  it.each([
    ["a pattern and a list that disagree", { layers_block_type: ["mlp"] }, "CONFIG_INVALID"],
    ["a pattern of another length", { num_hidden_layers: 8 }, "CONFIG_INVALID"],
    ["an unknown letter", { hybrid_override_pattern: "M-M*-M*-X" }, "CONFIG_INVALID"],
    ["a layer of another kind", { hybrid_override_pattern: "M-M*-M*--" }, "TENSOR_MISSING"],
    ["a missing key", { mamba_num_heads: undefined }, "CONFIG_INVALID"],
    ["an activation we do not compute", { mlp_hidden_act: "silu" }, "UNSUPPORTED"],
    ["a bias that no golden has", { use_bias: true }, "UNSUPPORTED"],
    ["another number of groups", { n_groups: 4 }, "SHAPE_MISMATCH"],
    ["another head size", { head_dim: 32, attention_head_dim: 32 }, "SHAPE_MISMATCH"],
    ["another vocabulary", { vocab_size: 500 }, "SHAPE_MISMATCH"],
    ["experts in unequal groups", { n_group: 3 }, "CONFIG_INVALID", "moe"],
    ["groups of one expert", { n_group: 8 }, "CONFIG_INVALID", "moe"],
    ["more groups kept than there are", { topk_group: 3 }, "CONFIG_INVALID", "moe"],
    ["more experts a token than are eligible", { num_experts_per_tok: 5 }, "CONFIG_INVALID", "moe"],
    ["a pruned relative", { model_type: "nemotron_h_puzzle" }, "UNSUPPORTED"],
    ["another family", { model_type: "gpt2" }, "FAMILY_UNKNOWN"],
  ])("%s", async (_, change, code, name: string = "tiny") =>
    expect(await refused(change as Record<string, unknown>, name)).toBe(code),
  );

  it("a pruned relative's next step is one that works", async () => {
    const puzzle = withConfig(await golden("tiny"), { model_type: "nemotron_h_puzzle" });
    const { next } = await errorOf(async () => match(puzzle));
    expect(next).toMatch(/\.safetensors files by itself/);
  });

  it("null is as good as absent where Transformers takes it", async () => {
    const tiny = await golden("tiny");
    const nulls = ["layers_block_type", "norm_eps", "rms_norm_eps", "num_hidden_layers", "rope_scaling"];
    const config = withConfig(tiny, Object.fromEntries(nulls.map((key) => [key, null])));
    expect(match(config).settings).toEqual(match(tiny).settings);
  });

  it("widths come from the config's heads, never from expand", async () => {
    const { settings } = match(withConfig(await golden("tiny"), { expand: 17 }));
    expect(nemotronH.dims(settings).inner).toBe(128);
  });

  it("a tensor too many, a tensor too few", async () => {
    const checkpoint = await golden("tiny");
    const [first, ...rest] = checkpoint.tensors;
    const extra = { ...first!, name: "backbone.layers.3.mixer.surprise.weight" };
    expect(await codeOf(async () => match({ ...checkpoint, tensors: rest }))).toBe("TENSOR_MISSING");
    expect(await codeOf(async () => match({ ...checkpoint, tensors: [...checkpoint.tensors, extra] }))).toBe(
      "TENSOR_UNKNOWN",
    );
  });
});
