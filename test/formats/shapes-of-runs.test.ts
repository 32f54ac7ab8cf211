/** Ranks of runs of every shape are the model that they were cut from; what else training kept is counted. */
import { describe, expect, it } from "vitest";
import { megatron } from "../../formats/megatron/format.ts";
import { namespace } from "../../formats/torch-dist/pickles.ts";
import type { Checkpoint } from "../../src/core/checkpoint.ts";
import { families } from "../../src/families/index.ts";
import { matchRoles } from "../../src/families/match.ts";
import { golden } from "../support/goldens.ts";
import { memoryStore } from "../support/memory-store.ts";
import { type RankFile, rankFiles } from "../support/ranks-cut.ts";
import { type Cut, inMegatron } from "../support/verify/megatron-copy.ts";
import { copyOf, opened } from "../support/verify/planted.ts";
import { verifyCheckpoints } from "../support/verify/verify-checkpoints.ts";

const FILE = "model_optim_rng.pt";
const TRAINING = [
  ["optimizer", { dict: [["state", { list: [] }]] }],
  ["opt_param_scheduler", { dict: [["max_lr", { float: 1e-4 }]] }],
  ["rng_state", { list: [{ dict: [] }] }],
  ["num_floating_point_operations_so_far", 0],
] as const;

async function read(name: string, cut: Cut, files: readonly RankFile[], args: object): Promise<Checkpoint> {
  const made = await inMegatron(await copyOf(golden(name)), cut);
  const config = namespace({ ...made.config, ...args });
  const ranks = rankFiles(made.tensors, files, [["args", config], ...TRAINING]);
  const checkpoint = await megatron.read(memoryStore("ranks", ranks));
  return { ...checkpoint, hints: { vocab: 512 } };
}

const one: Cut = { dialect: "megatron-ranks", tp: 1, stages: [0], ep: 1, rows: 512 };
/** Two pipeline ranks that hold two stages each: stage v of rank p is v * 2 + p in depth. */
const VIRTUAL = [0, 1].map((p) => ({
  path: `mp_rank_00_00${p}/${FILE}`,
  parts: { model0: `0.${p}.0`, model1: `0.${p + 2}.0` },
}));

describe("ranks", () => {
  it.each<[string, string, Cut, readonly RankFile[], object]>([
    [
      "a virtual pipeline, two stages a rank",
      "tiny",
      { ...one, stages: [0, 2, 5, 7] },
      VIRTUAL,
      { pipeline_model_parallel_size: 2 },
    ],
    [
      "experts of two ranks, counted by a second number",
      "moe",
      { ...one, ep: 2 },
      [0, 1].map((ep) => ({ path: `mp_rank_00_00${ep}/${FILE}`, parts: { model: `0.0.${ep}` } })),
      { expert_model_parallel_size: 2, pipeline_model_parallel_size: 1 },
    ],
    [
      "two of each, counted by three numbers",
      "moe",
      { ...one, tp: 2, stages: [0, 4], ep: 2 },
      [0, 1].flatMap((tp) =>
        [0, 1].flatMap((pp) =>
          [0, 1].map((ep) => ({
            path: `mp_rank_0${tp}_00${pp}_00${ep}/${FILE}`,
            parts: { model: `${tp}.${pp}.${ep}` },
          })),
        ),
      ),
      { tensor_model_parallel_size: 2, pipeline_model_parallel_size: 2, expert_model_parallel_size: 2 },
    ],
  ])("of %s", async (_, name, cut, files, args) => {
    const checkpoint = await read(name, cut, files, args);
    const report = await verifyCheckpoints(await opened(await copyOf(golden(name))), checkpoint, {
      verify: "bytes",
    });
    expect(report).toMatchObject({ verdict: "same", firstDivergence: null });
    const { dropped } = matchRoles(checkpoint, families, new Set());
    expect(Object.fromEntries(dropped.map(({ why, names }) => [why, names]))).toEqual({
      "optimizer state": ["optimizer"],
      "training state": ["opt_param_scheduler"],
      "random number generators": ["rng_state"],
      "extra state of modules": ["decoder.final_norm._extra_state"],
    });
  });

  it("with the stages of a virtual pipeline confused are another model", async () => {
    const cut = { ...one, stages: [0, 2, 5, 7] };
    const swapped = VIRTUAL.map(({ path, parts }) => ({
      path,
      parts: { model0: parts.model1, model1: parts.model0 },
    }));
    await expect(
      read("tiny", cut, swapped, { pipeline_model_parallel_size: 2 }).then((wrong) =>
        matchRoles(wrong, families, new Set()),
      ),
    ).rejects.toMatchObject({ exit: 3 });
  });
});
