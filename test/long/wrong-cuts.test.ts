/**
 * Wrong cuts, made on purpose. The plan and the comparison of bytes read the source through the same wrong layout, so that only the
 * forward pass against the masked source can see the mistake. It must name the layer.
 */
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { hf } from "../../formats/hf/format.ts";
import { writeVerified } from "../../src/api/write-verified.ts";
import { loadModelWithScales, type ModelWithScales } from "../../src/checkpoint/load.ts";
import { openCheckpoint } from "../../src/checkpoint/open.ts";
import type { WritableFormat } from "../../src/convert/prepare.ts";
import { ignoreEvents } from "../../src/core/events.ts";
import { indexRuns, takeMoves } from "../../src/core/mapping/layout.ts";
import type { Cut } from "../../src/pruning/cut.ts";
import { type CutModel, cutModel } from "../../src/pruning/cut-model.ts";
import { planCut } from "../../src/pruning/plan.ts";
import { proveCut } from "../../src/pruning/proof.ts";
import type { VerifyReport } from "../../src/verify/report.ts";
import { PARENT_ROOT, puzzle } from "../support/cuts.ts";
import { workFolder } from "../support/goldens.ts";

const work = workFolder();
const source = await loadModelWithScales(await openCheckpoint(puzzle("parent"), {}), {});
const ids = Array.from({ length: 20 }, (_, t) => (37 * t + 11) % 512);
const every = Array.from({ length: 19 }, (_, layer) => layer);
const without = (count: number, ...gone: readonly number[]) =>
  Array.from({ length: count }, (_, i) => i).filter((i) => !gone.includes(i));
const layersOf = (letter: string) =>
  [..."M-M-M*-M-M*-M-M*-M-"].flatMap((kind, i) => (kind === letter ? [i] : []));
const whole: Cut = { layers: every, ffn: new Map(), mambaHeads: new Map(), heads: new Map() };

const HEADS = [1, 2, 3, 4, 6, 7];
const FFN = without(128, 3, 50, 51, 100);
const QUERY = [1, 3];
const HIDDEN = without(64, 5, 6, 40, 63);
const mamba: Cut = { ...whole, mambaHeads: new Map(layersOf("M").map((layer) => [layer, HEADS])) };
const mlp: Cut = { ...whole, ffn: new Map(layersOf("-").map((layer) => [layer, FFN])) };
const attention: Cut = { ...whole, heads: new Map(layersOf("*").map((layer) => [layer, QUERY])) };
const hidden: Cut = { ...whole, hidden: HIDDEN };

let counter = 0;

/** Writes what `view` says, by the rules of `done`, and proves it to be `cut`. */
async function proved(
  view: CutModel,
  cut: Cut,
  model: ModelWithScales = source,
  done: Cut = cut,
): Promise<VerifyReport> {
  const format = hf as WritableFormat; // this format is written
  const options = { threads: 1 };
  const { plan, model: planned } = await planCut(model, view, done, {
    ...{ writer: format.writes, options, version: "test", root: PARENT_ROOT },
  });
  const first = { ids, textTokens: 0, text: null, seed: null };
  const report = await writeVerified<VerifyReport | null>({
    ...{ destination: join(work, `cut-${counter++}`), planned: plan, format, options, watch: ignoreEvents },
    prove: async (path) => {
      const written = await loadModelWithScales(await openCheckpoint(path, {}), {});
      const prompts = { first, all: [ids] };
      const request = {
        source: model,
        root: PARENT_ROOT,
        cut,
        view: { ...view, model: planned },
        prompts,
        options,
      };
      return (await proveCut(written, request)).proof;
    },
    report: (verification) => verification,
  });
  return report!;
}

/** A view with other indices for one axis of one role. */
function misread(cut: Cut, key: string, axis: number, indices: readonly number[]): CutModel {
  const view = cutModel(source, cut);
  const { from } = view.roles.find(({ role }) => role.key === key)!;
  const moves = takeMoves(source.roleSources.get(from.key)!, from.shape, axis, indexRuns(indices));
  return {
    ...view,
    model: { ...view.model, roleSources: new Map([...view.model.roleSources, [key, moves]]) },
  };
}

const rows = (units: readonly number[], size: number, at = 0) =>
  units.flatMap((k) => Array.from({ length: size }, (_, i) => at + k * size + i));
const run = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i);
const inRows = ({ z = HEADS, x = HEADS, bc = 256, dt = HEADS }) => [
  ...rows(z, 16),
  ...rows(x, 16, 128),
  ...run(bc, bc + 64),
  ...rows(dt, 1, 320),
];
const OTHER = [0, 2, 3, 4, 6, 7];
const convRows = (heads: readonly number[]) => [...rows(heads, 16), ...run(128, 192)];
const swapped = (list: readonly number[]) => [list[1]!, list[0]!, ...list.slice(2)];

describe("the forward pass alone sees a wrong cut, and names its layer", () => {
  it.each<[string, Cut, string, number, readonly number[], number]>([
    ["dt of another head", mamba, "main.2.ssm.in", 0, inRows({ dt: OTHER }), 2],
    ["the dt rows of the first heads", mamba, "main.0.ssm.in", 0, inRows({ dt: run(0, 6) }), 0],
    ["z of another head", mamba, "main.4.ssm.in", 0, inRows({ z: OTHER }), 4],
    ["x of another head", mamba, "main.7.ssm.in", 0, inRows({ x: OTHER }), 7],
    [
      "z and x exchanged in order",
      mamba,
      "main.7.ssm.in",
      0,
      [...rows(HEADS, 16, 128), ...rows(HEADS, 16), ...inRows({}).slice(192)],
      7,
    ],
    ["B and C one row early", mamba, "main.9.ssm.in", 0, inRows({ bc: 255 }), 9],
    ["convolution of another head", mamba, "main.0.ssm.conv", 0, convRows(OTHER), 0],
    ["B and C of the convolution cut in place of x", mamba, "main.2.ssm.conv", 0, run(0, 160), 2],
    ["bias of the convolution of another head", mamba, "main.2.ssm.conv.bias", 0, convRows(OTHER), 2],
    ["A_log of another head", mamba, "main.12.ssm.A_log", 0, OTHER, 12],
    ["D of another head", mamba, "main.12.ssm.D", 0, OTHER, 12],
    ["dt_bias of another head", mamba, "main.14.ssm.dt_bias", 0, OTHER, 14],
    ["gain of another head", mamba, "main.17.ssm.norm", 0, rows(OTHER, 16), 17],
    ["columns of out_proj of another head", mamba, "main.17.ssm.out", 1, rows(OTHER, 16), 17],
    ["heads in another order in one vector", mamba, "main.4.ssm.A_log", 0, swapped(HEADS), 4],
    ["up in another order than down", mlp, "main.3.mlp.up", 0, swapped(FFN), 3],
    ["up one row off", mlp, "main.6.mlp.up", 0, without(128, 3, 50, 51, 99), 6],
    ["down one column off", mlp, "main.8.mlp.down", 1, without(128, 4, 50, 51, 100), 8],
    ["queries of the dropped head", attention, "main.5.attn.q", 0, rows([0, 3], 16), 5],
    [
      "queries of neighbouring key and value heads exchanged",
      attention,
      "main.10.attn.q",
      0,
      rows([3, 1], 16),
      10,
    ],
    ["columns of o_proj of the dropped head", attention, "main.15.attn.o", 1, rows([1, 2], 16), 15],
    ["a gain of a dropped channel", hidden, "main.3.norm", 0, without(64, 4, 6, 40, 63), 3],
    ["rows of an output of a dropped channel", hidden, "main.4.ssm.out", 0, without(64, 4, 6, 40, 63), 4],
    ["the token table cut elsewhere", hidden, "embed", 1, without(64, 4, 6, 40, 63), -1],
    ["the last norm cut elsewhere", hidden, "final.norm", 0, without(64, 4, 6, 40, 63), 19],
    ["the head cut elsewhere", hidden, "head", 1, without(64, 4, 6, 40, 63), 19],
  ])("%s", { timeout: 120_000 }, async (_, cut, key, axis, indices, layer) => {
    const report = await proved(misread(cut, key, axis, indices), cut);
    const verdicts = report.rungs.map(({ rung, verdict }) => [rung, verdict]);
    expect(verdicts).toEqual([
      ["cover", "same"],
      ["bytes", "same"],
      ["logits", "different"],
    ]);
    expect(report.verdict).toBe("different");
    expect(report.firstDivergence?.layer).toBe(layer);
    expect(report.certificate).toBeNull();
  });

  it.each<[string, Cut, Cut, number]>([
    [
      "heads ranked over all groups",
      { ...mamba, mambaHeads: new Map([...mamba.mambaHeads, [4, run(0, 6)]]) },
      mamba,
      4,
    ],
    [
      "two other layers of the same kinds dropped",
      { ...whole, layers: without(19, 2, 3) },
      { ...whole, layers: without(19, 0, 1) },
      0,
    ],
    ["two layers in each other's place", { ...whole, layers: [2, 1, 0, ...run(3, 19)] }, whole, 0],
  ])("%s", { timeout: 120_000 }, async (_, done, intended, layer) => {
    const report = await proved(cutModel(source, done), intended);
    expect(report.rungs.find(({ rung }) => rung === "logits")?.verdict).toBe("different");
    expect(report.firstDivergence?.layer).toBe(layer);
  });
});

it("a norm that counts all heads is not the pruned model's: a silent head cannot be cut for free", async () => {
  const { dims, family } = source;
  const uncounted = { ...family.forward.masks!(dims), norms: {} };
  const simplified = { ...family, forward: { ...family.forward, masks: () => uncounted } };
  const report = await proved(cutModel(source, mamba), mamba, { ...source, family: simplified });
  expect(report.firstDivergence).toMatchObject({ layer: 0, door: "g" });
  expect((await proved(cutModel(source, mamba), mamba)).verdict).toBe("within");
});

it("gains that are rescaled where they should stay, or stay where they should be rescaled, are seen", async () => {
  const rescaled: Cut = { ...mamba, rescaledGains: true };
  for (const [done, intended] of [
    [mamba, rescaled],
    [rescaled, mamba],
  ] as const) {
    const report = await proved(cutModel(source, done), intended, source, done);
    expect(report.rungs.find(({ rung }) => rung === "logits")?.verdict).toBe("different");
    expect(report.firstDivergence).toMatchObject({ layer: 0, door: "g" });
  }
  expect((await proved(cutModel(source, rescaled), rescaled)).verdict).toBe("within");
});

it("bytes that differ from the source are named by layer and tensor, whatever the forward pass says", async () => {
  const view = cutModel(source, mlp);
  const wrong = misread(mlp, "main.6.mlp.up", 0, without(128, 3, 50, 51, 99));
  const format = hf as WritableFormat; // this format is written
  const target = { writer: format.writes, options: { threads: 1 }, version: "test", root: PARENT_ROOT };
  const { plan } = await planCut(source, wrong, mlp, target);
  const { model } = await planCut(source, view, mlp, target);
  const first = { ids, textTokens: 0, text: null, seed: null };
  const report = await writeVerified<VerifyReport | null>({
    ...{
      destination: join(work, "bytes"),
      planned: plan,
      format,
      options: { threads: 1 },
      watch: ignoreEvents,
    },
    prove: async (path) => {
      const written = await loadModelWithScales(await openCheckpoint(path, {}), {});
      const prompts = { first, all: [ids] };
      const request = { source, root: PARENT_ROOT, cut: mlp, view: { ...view, model }, prompts, options: {} };
      return (await proveCut(written, request)).proof;
    },
    report: (verification) => verification,
  });
  expect(report?.rungs.find(({ rung }) => rung === "bytes")?.verdict).toBe("different");
  expect(report?.firstDivergence).toMatchObject({ layer: 6, kind: "mlp" });
  expect(report?.firstDivergence?.tensors).toContain("backbone.layers.6.mixer.up_proj.weight");
});
