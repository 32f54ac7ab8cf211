/** What every format must do, by one suite: a new one is admitted by a line in `formats/index.ts`. */
import { expect, it } from "vitest";
import { formats } from "../../formats/index.ts";
import { type FormatTrial, formatConformance } from "../../src/conformance/formats.ts";
import { hostileTo } from "../support/hostile.ts";

/**
 * Bytes of one tensor that opening may touch. An archive of torch.save is described at its end and begins with what
 * is described: 4 KiB of each are read at once. All others touch none.
 */
const TOUCHED: Readonly<Record<string, number>> = { nemo2: 8192, bridge: 8192, megatron: 8192, gguf: 65_536 };

/** llama.cpp runs models with Mamba and attention layers, and with one kind of feed-forward layer. */
const MODELS: Readonly<Record<string, NonNullable<FormatTrial["models"]>>> = {
  gguf: [
    ["Mamba and attention", "M*", {}],
    ["MLP layers, in several shards", "M-*-M", {}, 20_000],
    ["a token table of half a megabyte", "M*", { vocab_size: 4096 }],
    ["a mixture of experts", "ME*E", {}],
    [
      "experts behind a latent projection, and a prediction step",
      "ME*E",
      { moe_latent_size: 24, num_nextn_predict_layers: 1, mtp_hybrid_override_pattern: "*E" },
      60_000,
    ],
  ],
};

const hostile = await Promise.all(formats.map(({ id }) => hostileTo(id)));

it.each(formats.map(({ id }, i) => [id, hostile[i]!] as const))("%s has hostile files", (_, cases) => {
  expect(cases.length).toBeGreaterThan(0);
});

for (const [i, format] of formats.entries())
  formatConformance(format, {
    hostile: hostile[i]!,
    touchedBytes: TOUCHED[format.id] ?? 0,
    ...(MODELS[format.id] !== undefined && { models: MODELS[format.id]! }),
  });
