/** What verdicts rest on: limits, prompts, numbers lost on the way, memory, progress, and what is refused when. */
import { existsSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { createWasmBackend } from "../../kernels/backend/wasm.ts";
import { convert } from "../../src/api/convert.ts";
import type { VerifyOptions } from "../../src/certificate/options.ts";
import { loadModelWithScales } from "../../src/checkpoint/load.ts";
import type { FloatDType } from "../../src/core/dtype.ts";
import type { Event } from "../../src/core/events.ts";
import { splitMix64 } from "../../src/core/random.ts";
import { promptOf, seededIds } from "../../src/inference/prompts.ts";
import { ROUNDER_BYTES, Rounder } from "../../src/inference/rounding.ts";
import { givenLimits, limitExcesses, limitsFor, looksTrained, wiringLimit } from "../../src/verify/limits.ts";
import { logitsVerdict } from "../../src/verify/logits.ts";
import type { LogitsSummary } from "../../src/verify/metrics.ts";
import { neededBytes, runLockstep } from "../../src/verify/side-by-side.ts";
import { codeOf } from "../support/errors.ts";
import { golden, workFolder } from "../support/goldens.ts";
import { copyOf, Editor, opened, written } from "../support/verify/planted.ts";
import { verifyCheckpoints } from "../support/verify/verify-checkpoints.ts";

const work = workFolder();
const QUICK: VerifyOptions = { tokens: 17, threads: 1, memoryBytes: 64 * 1024 * 1024 };
const tiny = await copyOf(golden("tiny"));
await convert(golden("tiny"), `${work}/fp8`, { to: "hf", dtype: "fp8-e4m3", keepEnds: 0, verify: "off" });
const fp8 = await copyOf(`${work}/fp8`);

const GOOD: LogitsSummary = {
  ...{ maxAbs: 0.1, relL2: 0.01, cosine: 1, klMean: 1e-3, klP99: 1e-2, top1: 0.99 },
  ...{ nllA: 2, nllB: 2, nonFiniteA: 0, nonFiniteB: 0 },
  positions: { kl: [1e-2], per: 1, worst: [] },
};

describe("limits", () => {
  const of = (...dtypes: FloatDType[]) => limitsFor(new Set(dtypes), {});

  it("the widest of what a recast wrote", () => {
    expect(of()).toEqual({ klMean: 0, klP99: 0, top1: 1 });
    expect(of("F32")).toEqual({ klMean: 1e-6, klP99: 1e-5, top1: 1 });
    expect(of("BF16")).toEqual({ klMean: 1e-3, klP99: 1e-2, top1: 0.98 });
    expect(of("BF16", "F8_E4M3")).toEqual({ klMean: 1e-2, klP99: 1e-1, top1: 0.97 });
    expect(of("F8_E4M3", "F8_E5M2")).toEqual(of("F8_E5M2", "F32"));
  });

  it("the user's own replace them, but nothing widens what was not recast", () => {
    expect(limitsFor(new Set(["F8_E4M3"]), { kl: 0.5, top1: 0.1 })).toEqual({
      klMean: 0.5,
      klP99: 5,
      top1: 0.1,
    });
    expect(limitsFor(new Set(), { kl: 0.5, top1: 0.1 })).toEqual({ klMean: 0, klP99: 0, top1: 1 });
  });

  it("each can be exceeded, a NaN exceeds any", () => {
    const limits = of("F8_E4M3");
    expect(limitExcesses(GOOD, limits)).toEqual([]);
    for (const worse of [
      { klMean: 0.02 },
      { klP99: 0.2 },
      { top1: 0.9 },
      { klMean: NaN },
      { klP99: Infinity },
    ]) {
      expect(limitExcesses({ ...GOOD, ...worse }, limits), JSON.stringify(worse)).toHaveLength(1);
    }
  });

  it("those that the user gave are told apart", () => {
    expect(givenLimits({})).toEqual({});
    expect(givenLimits({ kl: 0.5, top1: 0 })).toEqual({ klMean: 0.5, top1: 0 });
    expect(givenLimits({ klP99: 1 })).toEqual({ klP99: 1 });
    expect(limitExcesses(GOOD, givenLimits({ kl: 1e-6, top1: 1 }))).toHaveLength(2);
    expect(limitExcesses(GOOD, {})).toEqual([]);
  });

  it("trained is a loss well below that of chance, over enough tokens", () => {
    expect(looksTrained(GOOD, 64, 512)).toBe(true);
    expect(looksTrained(GOOD, 15, 512)).toBe(false);
    expect(looksTrained({ ...GOOD, nllA: Math.log(512) }, 64, 512)).toBe(false);
    expect(looksTrained({ ...GOOD, nllA: NaN }, 64, 512)).toBe(false);
  });

  it("wiring: bits of one order of sums, else a bound by their length, never above 1e-5", () => {
    expect(wiringLimit(true, 4096)).toBe(0);
    expect(wiringLimit(false, 64)).toBe(64 * 2 ** -24);
    expect(wiringLimit(false, 1e6)).toBe(1e-5);
  });
});

describe("the logits' verdict", () => {
  const result = (logits: Partial<LogitsSummary>, bad = 0, controls: (boolean | null)[] = [true, null]) => ({
    layers: [],
    wiring: { maxRelL2: 0, limit: 0 },
    bad: Array.from({ length: bad }, () => ({ layer: 0, kind: "mlp", door: "up", relL2: 1, tensors: [] })),
    flips: 0,
    inOrder: true,
    logits: { ...GOOD, ...logits },
    controls: controls.map((caught) => ({
      layer: 0,
      kind: "mamba",
      door: "y",
      mutation: "D",
      caught,
      matrix: true,
    })),
  });

  it.each([
    ["same bits", { maxAbs: 0 }, false, "same"],
    ["same bits, some of them NaN", { maxAbs: 0, nonFiniteA: 9, nonFiniteB: 9 }, false, "unproven"],
    ["other bits", {}, false, "different"],
    ["a recast", {}, true, "within"],
    ["a recast of a source that overflows", { nonFiniteA: 1, nonFiniteB: 1 }, true, "unproven"],
    ["a recast that overflows", { nonFiniteB: 1 }, true, "different"],
  ] as const)("%s", (_, logits, recast, verdict) => {
    expect(logitsVerdict(result(logits), recast, false)).toBe(verdict);
    expect(logitsVerdict(result(logits, 1), recast, false)).toBe("different");
  });

  it("a recast that is too far is different", () => {
    expect(logitsVerdict(result({}), true, true)).toBe("different");
  });

  it("without a caught control of a layer's matrix it is unproven", () => {
    const of = (...controls: { caught: boolean | null; matrix: boolean }[]) => {
      const { controls: all, ...rest } = result(
        { maxAbs: 0 },
        0,
        controls.map(({ caught }) => caught),
      );
      return { ...rest, controls: all.map((one, i) => ({ ...one, matrix: controls[i]!.matrix })) };
    };
    const [vector, voidMatrix] = [
      { caught: true, matrix: false },
      { caught: null, matrix: true },
    ];
    for (const recast of [false, true]) {
      expect(logitsVerdict(of(), recast, false)).toBe("unproven");
      expect(logitsVerdict(of(vector, voidMatrix), recast, false)).toBe("unproven");
      expect(logitsVerdict(of(voidMatrix, { caught: true, matrix: true }), recast, false)).not.toBe(
        "unproven",
      );
    }
  });

  it("a control that was missed leaves it unproven, and excuses nothing", () => {
    expect(logitsVerdict(result({ maxAbs: 0 }, 0, [true, false]), false, false)).toBe("unproven");
    expect(logitsVerdict(result({}, 0, [false]), true, false)).toBe("unproven");
    expect(logitsVerdict(result({}, 1, [false]), true, false)).toBe("different");
    expect(logitsVerdict(result({}, 0, [false]), true, true)).toBe("different");
  });
});

describe("a limit that the user gives", () => {
  const judge = async (options: VerifyOptions) => {
    const report = await verifyCheckpoints(await opened(tiny), await opened(fp8), { ...QUICK, ...options });
    return { report, findings: report.findings.join("; ") };
  };

  it.each([
    [{ kl: 1e-6 }, "the mean KL divergence is"],
    [{ klP99: 1e-9 }, "the 99th percentile of the KL divergence is"],
    [{ kl: 1e-6, top1: 1 }, "and its limit is 0.000001"],
  ])("is judged on weights that look untrained: %j", async (options, finding) => {
    const { report, findings } = await judge(options);
    expect(report.verdict).toBe("different");
    expect(report.rungs.map(({ verdict }) => verdict)).toEqual(["same", "within", "different"]);
    expect(findings).toContain(finding);
  });

  it("is met where it is wide enough, and the others are not judged then", async () => {
    const { report, findings } = await judge({ kl: 10 });
    expect(report.verdict).toBe("within");
    expect(findings).toContain("judged by the given limits alone");
  });

  it("is unproven where nothing can judge it: no forward pass, or a source without numbers", async () => {
    const { report, findings } = await judge({ kl: 10, verify: "bytes" });
    expect(report.verdict).toBe("unproven");
    expect(findings).toContain("no forward pass ran: the limits that were given (klMean) were not judged");
    const editor = new Editor(tiny);
    editor.values("backbone.layers.1.mixer.up_proj.weight", () => NaN);
    const nan = await opened(editor.copy);
    expect((await verifyCheckpoints(nan, nan, { ...QUICK, kl: 1e-6 })).verdict).toBe("unproven");
  });

  it("of a copy, whose logits are the same bits, is met", async () => {
    const copy = await opened(tiny);
    expect((await verifyCheckpoints(copy, copy, { ...QUICK, kl: 0, top1: 1 })).verdict).toBe("same");
  });
});

describe("a model that overflows", () => {
  /** relu2 squares what 2^100 multiplied: infinities, and NaN where they meet */
  const overflowing = async () => {
    const editor = new Editor(tiny);
    editor.values("backbone.layers.1.mixer.up_proj.weight", (v) => v * 2 ** 100);
    return editor.copy;
  };

  it("is unproven, kept or recast: NaNs hide every deliberate fault", async () => {
    const copy = await overflowing();
    const kept = await verifyCheckpoints(await opened(copy), await opened(copy), QUICK);
    expect(kept.rungs.map(({ verdict }) => verdict)).toEqual(["same", "same", "unproven"]);
    expect(kept.findings.join()).toContain("logits of the first checkpoint are NaN or infinite");
    const editor = new Editor(copy);
    const name = "backbone.norm_f.weight";
    editor.put(name, { dtype: "F32", bytes: wide(editor.get(name).bytes) });
    const recast = await verifyCheckpoints(await opened(copy), await opened(editor.copy), QUICK);
    expect(recast.rungs.map(({ verdict }) => verdict)).toEqual(["same", "within", "unproven"]);
    expect(recast.verdict).toBe("unproven");
  });

  it("against one that does not is different", async () => {
    const report = await verifyCheckpoints(await opened(tiny), await opened(await overflowing()), QUICK);
    expect(report).toMatchObject({ verdict: "different", firstDivergence: { layer: 1, door: "up" } });
  });
});

/** BF16 as F32. */
function wide(bytes: Uint8Array): Uint8Array {
  const words = new Uint16Array(Uint8Array.from(bytes).buffer);
  return new Uint8Array(Uint32Array.from(words, (word) => word << 16).buffer);
}

describe("prompts", () => {
  it("SplitMix64 is that of its authors", () => {
    // the first words of seed 1234567 in the reference implementation (prng.di.unimi.it/splitmix64.c)
    const words = splitMix64(1234567);
    const first = Array.from({ length: 5 }, words);
    expect(first).toEqual([
      6457827717110365317n,
      3203168211198807973n,
      9817491932198370423n,
      4593380528125082431n,
      16408922859458223821n,
    ]);
  });

  it("are the same for a seed, within the vocabulary, and longer ones begin alike", () => {
    const long = seededIds(200, 5, 512);
    expect(seededIds(64, 5, 512)).toEqual(long.slice(0, 64));
    expect(seededIds(64, 6, 512)).not.toEqual(long.slice(0, 64));
    expect(Math.max(...long)).toBeLessThan(512);
  });

  it.each([{ ids: [] }, { ids: [512] }, { ids: [-1] }, { ids: [0.5] }, { tokens: 0 }, { tokens: 1.5 }])(
    "%j is refused",
    async (options) => {
      expect(await codeOf(async () => promptOf(options, await opened(tiny), 512))).toBe("USAGE");
    },
  );
});

describe("memory", () => {
  it("the need is the least ceiling under which the worst case runs", async () => {
    const editor = new Editor(fp8);
    editor.flip("backbone.layers.0.norm.weight"); // from here on every stage runs once more, on rounded's inputs
    const [a, b] = [
      await loadModelWithScales(await opened(tiny), {}),
      await loadModelWithScales(await opened(editor.copy), {}),
    ];
    const memoryBytes = 256 * 1024 * 1024;
    const ids = seededIds(17, 0, 512);
    const needed = (await neededBytes(a, b, { ...QUICK, memoryBytes }, ids)) - ROUNDER_BYTES;
    const within = (ceiling: number) =>
      codeOf(async () => {
        await using backend = await createWasmBackend({ threads: 1, memoryBytes: ceiling });
        const rounder = await Rounder.create();
        await runLockstep(a, b, { backend, ids, memoryBytes, rounder, watch() {}, signal: undefined });
      });
    expect(needed).toBeGreaterThan(4 * 8 * 1024 * 1024); // two bands a side
    expect(await within(needed)).toBe("no error");
    expect(await within(needed - 64)).toBe("PLAN_MEMORY");
  });

  it("is refused beforehand or suffices, at any ceiling", async () => {
    const codes = new Set<string>();
    for (const mebibytes of [1, 2, 4, 6, 7, 8, 9, 10, 12, 16, 24, 48]) {
      const layers: Event[] = [];
      const watch = (event: Event) => layers.push(event);
      const options = { ...QUICK, memoryBytes: mebibytes * 1024 * 1024, watch };
      const code = await codeOf(async () =>
        verifyCheckpoints(await opened(tiny), await opened(fp8), options),
      );
      codes.add(code);
      expect(["no error", "PLAN_MEMORY"]).toContain(code);
      if (code !== "no error") expect(layers).toEqual([]);
    }
    expect(codes.size).toBe(2);
  });
});

describe("what cannot be verified is refused before anything is written", () => {
  it.each([
    ["a token outside the vocabulary", "tiny", { ids: [512] }, "USAGE"],
    ["too little memory", "tiny", { dtype: "fp8-e4m3", memoryBytes: 4 * 1024 * 1024 }, "PLAN_MEMORY"],
    ["too many tokens", "tiny", { tokens: 100_000, memoryBytes: 64 * 1024 * 1024 }, "PLAN_MEMORY"],
  ] as const)("%s", async (name, source, options, code) => {
    const out = `${work}/refused-${name}`;
    expect(await codeOf(() => convert(golden(source), out, { to: "hf", ...options }))).toBe(code);
    expect(existsSync(out) || existsSync(`${out}.partial`)).toBe(false);
  });
});

describe("scales of rows", () => {
  const editor = new Editor(fp8);
  const name = "backbone.layers.4.mixer.up_proj.weight_scale";
  const rows = Float32Array.from({ length: 96 }, (_, i) => 2 ** -((i % 5) + 4));
  editor.put(name, { shape: [96, 1], bytes: new Uint8Array(rows.buffer) });
  const source = written(editor.copy, `${work}/rows`);

  it.each(["hf", "packed"])("are kept and verified by bytes, to %s", async (to) => {
    const report = await convert(source, `${work}/rows-${to}`, { to, verify: "bytes" });
    expect(report.verification?.verdict).toBe("same");
    expect(report.exact).toBe(true);
  });

  it("run in a forward pass, and are decoded", async () => {
    const kept = await convert(source, `${work}/rows-run`, { to: "hf", tokens: 8, backend: "wasm" });
    expect(kept.verification?.verdict).toBe("same");
    const bf16 = await convert(source, `${work}/rows-bf16`, { to: "hf", dtype: "bf16", verify: "bytes" });
    expect(bf16.verification?.verdict).toBe("within");
  });

  it("a scale that is none is refused before anything is written", async () => {
    const broken = new Editor(editor.copy);
    broken.f32(name, (scale, row) => (row === 7 ? NaN : scale));
    const out = `${work}/rows-broken-out`;
    const convertBroken = convert(written(broken.copy, `${work}/rows-broken`), out, {
      to: "hf",
      verify: "bytes",
    });
    await expect(convertBroken).rejects.toMatchObject({
      code: "SCALE_INVALID",
      at: { tensor: name, index: 7 },
    });
    expect(existsSync(out) || existsSync(`${out}.partial`)).toBe(false);
  });
});

it.each([
  ["bytes", tiny],
  ["logits", tiny],
  ["logits", fp8],
] as const)("by %s, each phase ends at its total", async (verify, copy) => {
  const { phases, rungs, watch } = counted();
  await verifyCheckpoints(await opened(tiny), await opened(copy), { ...QUICK, verify, watch });
  for (const { done, total } of phases.values()) expect(done).toBe(total);
  const counting = verify === "bytes" ? ["bytes"] : ["bytes", "logits"];
  // without a recast the forward passes read for both rungs
  expect([...phases.keys()]).toEqual(copy === tiny ? counting.toReversed() : counting);
  expect(rungs).toEqual(["cover", ...counting]);
});

it.each(["tensor", "row", "mxfp8"] as const)(
  "a conversion by %s, and its verification, end at their totals",
  async (quantScales) => {
    const { phases, watch } = counted();
    const options = { to: "hf", dtype: "fp8-e4m3", recipe: "all-linear", quantScales, watch } as const;
    await convert(golden("tiny"), `${work}/counted-${quantScales}`, {
      ...QUICK,
      ...options,
      verify: "bytes",
    });
    for (const [phase, { done, total }] of phases) expect(done, phase).toBe(total);
    expect([...phases.keys()]).toEqual(["convert", "bytes"]);
  },
);

/** Counts the bytes of each phase that states their number. */
function counted() {
  const phases = new Map<string, { done: number; total: number }>();
  const rungs: string[] = [];
  const watch = (event: Event) => {
    if (event.type === "phase" && event.totalBytes !== undefined)
      phases.set(event.phase, { done: 0, total: event.totalBytes });
    if (event.type === "advance") phases.get(event.phase)!.done += event.bytes;
    if (event.type === "rung") rungs.push(event.rung);
  };
  return { phases, rungs, watch };
}

it("metrics are the same bits for any memory and any threads", async () => {
  const runs = [
    { threads: 1, memoryBytes: 1024 ** 3 },
    { threads: 3, memoryBytes: 24 * 1024 * 1024 },
  ];
  const reports = await Promise.all(
    runs.map(async (run) => verifyCheckpoints(await opened(tiny), await opened(fp8), { tokens: 17, ...run })),
  );
  const metrics = reports.map(({ rungs }) => rungs[2]!.metrics);
  expect(metrics[1]).toEqual(metrics[0]);
});
