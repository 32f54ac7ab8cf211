/** Positive controls: what honest checkpoints give, what blind ones give, and that blindness is told. */
import { describe, expect, it } from "vitest";
import { convert } from "../../../src/api/convert.ts";
import type { VerifyOptions } from "../../../src/certificate/options.ts";
import { loadModelWithScales, type ModelWithScales } from "../../../src/checkpoint/load.ts";
import type { Tensor } from "../../../src/core/checkpoint.ts";
import { extentsOf } from "../../../src/core/read.ts";
import type { Family } from "../../../src/families/family.ts";
import type { Stage } from "../../../src/families/forward.ts";
import type { NemotronHDims } from "../../../src/families/nemotron-h/dims.ts";
import { nemotronH } from "../../../src/families/nemotron-h/index.ts";
import { seededIds } from "../../../src/inference/prompts.ts";
import { type BlockExchange, exchangeBlocks } from "../../../src/verify/controls/exchange.ts";
import { logitsRung } from "../../../src/verify/logits.ts";
import { golden, workFolder } from "../../support/goldens.ts";
import { metricsWith } from "../../support/rungs.ts";
import { type Copy, copyOf, Editor, opened } from "../../support/verify/planted.ts";
import { verifyCheckpoints } from "../../support/verify/verify-checkpoints.ts";

const work = workFolder();
const PROMPT = { ids: seededIds(17, 0, 512), textTokens: 0 };
const QUICK: VerifyOptions = { tokens: 17, threads: 1, memoryBytes: 64 * 1024 * 1024 };
const tiny = await copyOf(golden("tiny"));
const sharded = await copyOf(golden("sharded"));

async function judged(a: Copy, b: Copy, options = QUICK) {
  const report = await verifyCheckpoints(await opened(a), await opened(b), options);
  const { controls } = metricsWith(report, "logits", "controls");
  const where = (caught: boolean | null) =>
    controls
      .filter((one) => one.caught === caught)
      .map(({ mutation }) => mutation.split(" ")[0]!.replace(/^backbone\.layers\.\d+\./, ""));
  return { report, controls, missed: where(false), void: where(null) };
}

describe("exchanged pieces", () => {
  const pieces = [
    { file: "a", offset: 8, start: [0, 0], shape: [3, 4] },
    { file: "b", offset: 0, start: [3, 0], shape: [5, 2], strides: [2, 1] },
    { file: "c", offset: 100, start: [3, 2], shape: [5, 2], strides: [1, 5] },
  ];
  const tensor: Tensor = { name: "w", dtype: "BF16", shape: [8, 4], pieces };
  /** where each element lies, in C order */
  const places = (of: Tensor) =>
    extentsOf(of, 0, 32)
      .sort((x, y) => x.to - y.to)
      .flatMap(({ file, offset, size }) =>
        Array.from({ length: size / 2 }, (_, i) => `${file}${offset + 2 * i}`),
      );
  const CASES: readonly BlockExchange[] = [
    { axis: 0, a: 0, b: 1, count: 1 },
    { axis: 0, a: 2, b: 5, count: 3 },
    { axis: 0, a: 6, b: 0, count: 2 },
    { axis: 1, a: 1, b: 2, count: 1 },
    { axis: 1, a: 0, b: 2, count: 2 },
  ];

  it.each(CASES)("%j: each element from where its other lay", (exchange) => {
    const { axis, a, b, count } = exchange;
    const other = (at: number) =>
      at >= a && at < a + count ? at - a + b : at >= b && at < b + count ? at - b + a : at;
    const before = places(tensor);
    const want = before.map((_, i) => {
      const [row, column] = [Math.floor(i / 4), i % 4];
      return before[axis === 0 ? other(row) * 4 + column : row * 4 + other(column)];
    });
    expect(places(exchangeBlocks(tensor, exchange))).toEqual(want);
    expect(places(exchangeBlocks(exchangeBlocks(tensor, exchange), exchange))).toEqual(before);
  });
});

describe("honest checkpoints are never unproven", () => {
  it.each(["tiny", "tiny-t5", "sharded"])("%s: every control is caught, kept and recast", async (name) => {
    const source = await copyOf(golden(name));
    const kept = await judged(source, source);
    expect(kept).toMatchObject({ missed: [], void: [], report: { verdict: "same" } });
    expect(kept.controls).toHaveLength(36);
    await convert(golden(name), `${work}/${name}`, {
      to: "hf",
      dtype: "fp8-e4m3",
      keepEnds: 0,
      verify: "off",
    });
    const recast = await judged(source, await copyOf(`${work}/${name}`));
    expect(recast).toMatchObject({ missed: [], void: [], report: { verdict: "within" } });
  });

  it("each layer kind, the token table and the head, at the doors of its streams", async () => {
    const { controls } = await judged(sharded, sharded);
    const kinds = [...new Set(controls.map(({ layer, kind }) => `${layer} ${kind}`))];
    expect(kinds).toEqual(["-1 embedding", "0 mamba", "1 mlp", "5 attention", "13 head"]);
    const doors = controls.filter(({ kind }) => kind === "mamba").map(({ door }) => door);
    expect(new Set(doors)).toEqual(new Set("u z x B C dt conv.x conv.B conv.C y g out".split(" ")));
    expect(controls.map(({ mutation }) => mutation)).toContain(
      "backbone.layers.0.mixer.in_proj.weight: B and C exchanged",
    );
    expect(controls.map(({ mutation }) => mutation).join()).toContain("columns of heads");
  });

  it("fresh weights: gains all 1, biases and projections all 0 have nothing to confuse", async () => {
    const editor = new Editor(tiny);
    for (const name of editor.copy.tensors.keys()) {
      if (/norm(_f)?\.weight$/.test(name)) editor.values(name, () => 1);
      if (/conv1d\.bias$|out_proj|down_proj/.test(name)) editor.values(name, () => 0);
    }
    const { report, missed, void: nothing } = await judged(editor.copy, editor.copy);
    expect(missed).toEqual([]);
    expect(report.verdict).toBe("same");
    expect(new Set(nothing)).toEqual(
      new Set(
        ["norm", "mixer.norm", "backbone.norm_f", "mixer.out_proj", "mixer.down_proj"]
          .map((name) => `${name}.weight:`)
          .concat("mixer.conv1d.bias:"),
      ),
    );
  });

  it("one head of states that never moves does not close the eye: its neighbours are tried", async () => {
    const editor = new Editor(tiny);
    // the most unlike pair of A_log belongs to heads whose step is 0: only others can show
    editor.values("backbone.layers.0.mixer.A_log", (v, i) => (i === 0 ? -9 : i === 1 ? 9 : v));
    editor.values("backbone.layers.0.mixer.dt_bias", (v, i) => (i < 2 ? -1000 : v));
    const { missed } = await judged(editor.copy, editor.copy);
    expect(missed).toEqual([]);
  });
});

describe("a control that cannot show in the first layer of its kind is tried in the next", () => {
  const copyWith = (change: (editor: Editor) => void) => {
    const editor = new Editor(tiny);
    change(editor);
    return editor.copy;
  };
  const mixer = (layer: number, name: string) => `backbone.layers.${layer}.mixer.${name}.weight`;
  const zero = (value: number) => value * 0; // zeros of either sign, as multiplying in place leaves them

  it.each([
    ["an up projection", mixer(1, "up_proj"), [4]],
    ["values", mixer(3, "v_proj"), [6]],
    ["the gain of a layer's norm", "backbone.layers.0.norm.weight", [2]],
    ["an in projection", mixer(0, "in_proj"), [2]],
  ])("%s of zeros: all controls are caught, some of them later", async (_, name, later) => {
    const copy = copyWith((e) => e.values(name, zero));
    const { report, controls, missed, void: nothing } = await judged(copy, copy);
    expect([missed, nothing]).toEqual([[], []]);
    expect(report.verdict).toBe("same");
    expect(controls).toHaveLength(36);
    const layers = [...new Set(controls.map(({ layer }) => layer))].filter(
      (layer) => ![-1, 0, 1, 3, 9].includes(layer),
    );
    expect(layers).toEqual(later);
  });

  it("an up projection so small that its squares are 0", async () => {
    const copy = copyWith((e) => e.values(mixer(1, "up_proj"), (v) => v * 1e-39));
    expect(await judged(copy, copy)).toMatchObject({ missed: [], void: [], report: { verdict: "same" } });
  });

  it("and is void when it cannot show in any, which is told", async () => {
    const dead = copyWith((e) => {
      for (const layer of [0, 2, 5, 8]) e.values(mixer(layer, "in_proj"), zero);
    });
    const { report, missed, void: nothing } = await judged(dead, dead);
    expect(missed).toEqual([]);
    expect(new Set(nothing)).toEqual(
      new Set([
        "mixer.in_proj.weight:",
        "mixer.conv1d.weight:",
        "mixer.norm.weight:",
        "mixer.out_proj.weight:",
      ]),
    );
    expect(report.verdict).toBe("same");
    const findings = report.findings.join("; ");
    expect(findings).toMatch(/\d+ of \d+ controls of the kind mamba cannot show/);
    expect(findings).toContain("4 of 58 tensors are 0 in every element");
    const silent = copyWith((e) => {
      for (const layer of [1, 4, 7]) e.values(mixer(layer, "up_proj"), zero);
      for (const layer of [1, 4, 7]) e.values(`backbone.layers.${layer}.norm.weight`, zero);
    });
    const told = (await judged(silent, silent)).report;
    expect(told.verdict).toBe("same");
    expect(told.findings.join("; ")).toContain("no control of the kind mlp can show");
  });

  it.each([
    ["every element is 0", /./, 0, "58 of 58 tensors are 0 in every element"],
    ["every element is NaN", /./, NaN, "58 of 58 tensors are NaN in every element"],
    ["gains of 0 cut every layer off", /layers\.\d\.norm/, 0, "no control of a layer's matrix can show"],
    ["the token table is 0", /embeddings/, 0, "no control of a layer's matrix can show"],
  ])("is unproven where none of a layer's matrix can show: %s", async (_, names, value, finding) => {
    const copy = copyWith((e) => {
      for (const name of e.copy.tensors.keys()) if (names.test(name)) e.values(name, () => value);
    });
    const { report, missed } = await judged(copy, copy);
    expect(report.verdict).toBe("unproven");
    expect(report.findings.join("; ")).toContain(finding);
    if (value === 0) expect(missed).toEqual([]);
  });
});

describe("what these weights and tokens cannot show is told, and unproven", () => {
  it("one token shows no decay", async () => {
    const { report, missed } = await judged(tiny, tiny, { ...QUICK, tokens: 1 });
    expect(missed).toEqual(["mixer.A_log:"]);
    expect(report.verdict).toBe("unproven");
    expect(report.findings.join()).toMatch(/layer 0 \(mamba\).*door y.*mixer\.A_log.*`tokens`/);
  });

  it("steps of 0 show no decay", async () => {
    const editor = new Editor(tiny);
    editor.values("backbone.layers.0.mixer.dt_bias", (v) => v - 1000);
    const { report, missed, void: nothing } = await judged(editor.copy, editor.copy);
    expect(missed).toEqual(["mixer.A_log:"]);
    expect(nothing).toEqual([]); // BF16 keeps -1000 of all biases, so those of the next layer are exchanged
    expect(report.verdict).toBe("unproven");
  });

  it("and is no excuse for what is wrong", async () => {
    const editor = new Editor(tiny);
    editor.flip("backbone.layers.3.mixer.k_proj.weight");
    expect((await judged(tiny, editor.copy, { ...QUICK, tokens: 1 })).report.verdict).toBe("different");
  });
});

describe("a forward pass with a closed eye, on both sides, is unproven", () => {
  const source = (change: (stage: Stage) => Stage): Promise<ModelWithScales> =>
    opened(tiny).then(async (checkpoint) => {
      const side = await loadModelWithScales(checkpoint, {});
      const { forward } = nemotronH;
      const closed = {
        ...forward,
        block: (kind: "mamba", d: NemotronHDims) => forward.block(kind, d).map(change),
      };
      const family: Family = { ...nemotronH, forward: closed as Family["forward"] };
      return { ...side, family };
    });

  it.each([
    ["D", "y"],
    ["dt_bias", "y"],
    ["taps.B", "conv.B"],
    ["gain", "u"],
  ])("%s is never used", async (parameter, door) => {
    const blind = await source((stage) => {
      if (stage.op !== "kernel" || !stage.parameters.includes(parameter)) return stage;
      const at = stage.from.length + stage.parameters.indexOf(parameter);
      return {
        ...stage,
        run: async (backend, d, tokens, inputs, output) => {
          const zeros = backend.allocate(inputs[at]!.bytes);
          await backend.upload(zeros, zeros.bytes, (view) => {
            view.fill(0);
          });
          await stage.run(backend, d, tokens, inputs.with(at, zeros), output);
          backend.release(zeros);
        },
      };
    });
    const rung = await logitsRung(blind, blind, QUICK, PROMPT);
    expect(rung.bad).toEqual([]);
    expect(rung.metrics.maxAbs).toBe(0);
    expect(rung.verdict).toBe("unproven");
    expect(rung.metrics.controls.filter(({ caught }) => caught === false)).toContainEqual(
      expect.objectContaining({ door }),
    );
  });

  it.each([
    ["attention", "a", "o_proj"],
    ["act", "act", "down_proj"],
    ["u", "u", "norm"],
    ["conv.x", "conv.x", "conv1d"],
    ["y", "y", "mixer.D"],
    ["g", "g", "mixer.norm"],
  ])("a kernel that loses its result is no input of zeros: %s", async (_, lost, tensor) => {
    const blind = await source((stage) => {
      if (stage.op !== "kernel" || stage.to !== lost) return stage;
      return {
        ...stage,
        run: async (backend, _dims, _tokens, _inputs, output) => {
          await backend.upload(output, output.bytes, (view) => {
            view.fill(0);
          });
        },
      };
    });
    const rung = await logitsRung(blind, blind, QUICK, PROMPT);
    expect(rung.verdict).toBe("unproven");
    const missed = rung.metrics.controls.filter(({ caught }) => caught === false);
    expect(missed.map(({ mutation }) => mutation).join()).toContain(tensor);
  });
});
