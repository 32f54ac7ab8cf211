import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { megatron } from "../../formats/megatron/format.ts";
import type { Tensor } from "../../src/core/checkpoint.ts";
import { sha256 } from "../../src/core/hash.ts";
import { fileStore } from "../../src/io/file.ts";
import { bytesIn, watchedStore } from "../support/content.ts";
import { golden } from "../support/goldens.ts";

const { store, payloadBytes } = watchedStore(await fileStore(golden("megatron-tp2")));
const model = await megatron.read(store);
const opened = payloadBytes(model.tensors);

describe("ranks of a real model at TP 2", () => {
  it("are two of each tensor, with the training state left unread", () => {
    expect(model.dialect).toBe("megatron-ranks");
    const ranks = model.tensors.map(({ name, rank }) => `${name}@${rank!.tp}.${rank!.pp}.${rank!.ep}`);
    expect(new Set(ranks).size).toBe(model.tensors.length);
    expect(model.tensors.filter(({ rank }) => rank!.tp === 1)).toHaveLength(model.tensors.length / 2);
    expect(model.tensors.some(({ name }) => name.includes("_extra_state"))).toBe(false);
    expect(model.objects).toContain("decoder.layers.0.mixer.in_proj._extra_state");
  });

  it("join to what torch read of the same model, or repeat it", async () => {
    const dump: Record<string, { sha256?: string; shape?: number[] }> = JSON.parse(
      readFileSync(golden("nemo2-tp2/dcp.json"), "utf8"),
    );
    const byName = new Map<string, Tensor[]>();
    for (const tensor of model.tensors) byName.set(tensor.name, [...(byName.get(tensor.name) ?? []), tensor]);
    let compared = 0;
    for (const [name, parts] of byName) {
      const whole = dump[`module.${name}`];
      if (whole?.sha256 === undefined) continue; // in_proj and conv1d lie there in parts
      const [a, b] = await Promise.all(parts.map((part) => bytesIn(store, part)));
      const rows = parts[0]!.shape[0]!;
      const stride = a!.byteLength / rows;
      const columns = Array.from({ length: rows }, (_, row) => [
        a!.subarray(row * stride, (row + 1) * stride),
        b!.subarray(row * stride, (row + 1) * stride),
      ]).flat();
      const joins = [a!, Buffer.concat([a!, b!]), Buffer.concat(columns)].map(sha256);
      expect(joins, name).toContain(whole.sha256);
      compared++;
    }
    expect(compared).toBe(4 * 6 + 5 * 3 + 3);
  });

  it("give the arguments as they were pickled", () => {
    expect(model.config).toMatchObject({
      hybrid_override_pattern: "M-M*-M-*M",
      padded_vocab_size: 512,
      tensor_model_parallel_size: 2,
      params_dtype: { _target_: "torch.bfloat16", _call_: false },
    });
  });

  it("are opened by their directories and pickles", () => {
    expect(opened).toBeLessThanOrEqual(8192);
  });
});
