/**
 * Faults to which the bytes rung must be blind, because they lie in code and not in bytes: one side runs with a
 * wrong table of uses, or decodes under a wrong scale. The logits rung alone must see each, and name its door.
 */
import { afterAll, describe, expect, it } from "vitest";
import type { VerifyOptions } from "../../src/api.ts";
import { convert } from "../../src/convert/convert.ts";
import type { Dims, Family, Feed, Native, Use } from "../../src/families/define.ts";
import { nemotronH } from "../../src/families/nemotron-h/index.ts";
import { Pool, poolSize } from "../../src/lanes/pool.ts";
import { compareBytes } from "../../src/verify/bytes.ts";
import { type LogitsRung, logitsRung } from "../../src/verify/logits-rung.ts";
import { seededIds } from "../../src/verify/prompts.ts";
import { type Ready, ready } from "../../src/verify/sides.ts";
import { golden, workFolder } from "../goldens.ts";
import { copyOf, opened } from "./planted.ts";

const work = workFolder();
const PROMPT = { ids: seededIds(17, 0, 512), textTokens: 0 };
const QUICK: VerifyOptions = { tokens: 17, threads: 1, memoryBytes: 64 * 1024 * 1024 };
const score = { planted: 0, named: 0 };
afterAll(() => console.log(`faults in code: ${score.named}/${score.planted} named by the logits rung alone`));

const source = await ready(await opened(await copyOf(golden("sharded"))), {});
await convert(golden("sharded"), `${work}/fp8`, {
  to: "hf",
  dtype: "fp8-e4m3",
  keepEnds: 0,
  verify: "off",
});
const fp8 = await ready(await opened(await copyOf(`${work}/fp8`)), {});

/** The same checkpoint, run by other uses. */
function run(side: Ready, native: Native): Ready {
  const family: Family = { ...nemotronH, forward: { ...nemotronH.forward, natives: [native] } };
  return { ...side, matched: { ...side.matched, family } };
}

/** The uses of a layer kind, with the feeds of one tensor changed. */
const refed =
  (kind: keyof Native["uses"], name: string, feeds: (feeds: readonly Feed[], d: Dims) => readonly Feed[]) =>
  (native: Native): Native => {
    const uses: readonly Use[] = native.uses[kind].map((use) =>
      use.name === name ? { name, feeds: (d) => feeds(use.feeds(d), d) } : use,
    );
    return { ...native, uses: { ...native.uses, [kind]: uses } };
  };

/** Two stored tensors of a layer taken for one another. */
const renamed =
  (kind: keyof Native["uses"], a: string, b: string) =>
  (native: Native): Native => {
    const other: Readonly<Record<string, string>> = { [a]: b, [b]: a };
    const uses = native.uses[kind].map((use) => ({ ...use, name: other[use.name] ?? use.name }));
    return { ...native, uses: { ...native.uses, [kind]: uses } };
  };

const exchange = (a: string, b: string) => (feeds: readonly Feed[]) =>
  feeds.map((feed) => ({ ...feed, to: feed.to === a ? b : feed.to === b ? a : feed.to }));

/** The two halves of what feeds a stream exchanged: groups, heads. */
const halves = (stream: string) => (feeds: readonly Feed[]) =>
  feeds.flatMap((feed) => {
    if (feed.to !== stream) return [feed];
    const count = feed.count / 2;
    return [
      { ...feed, count, at: feed.at + count },
      { ...feed, count, from: feed.from + count },
    ];
  });

const moved = (stream: string, by: number) => (feeds: readonly Feed[]) =>
  feeds.map((feed) => (feed.to === stream ? { ...feed, from: feed.from + by } : feed));

/** sharded: M-M-M*-MM*-M-; the first Mamba layer is 0, MLP 1, attention 5, the head 13. */
const FAULTS: Readonly<Record<string, readonly [(native: Native) => Native, layer: number, door: string]>> = {
  "z and x swapped": [refed("mamba", "mixer.in_proj.weight", exchange("z", "x")), 0, "z"],
  "B and C swapped": [refed("mamba", "mixer.in_proj.weight", exchange("B", "C")), 0, "B"],
  "halves of the groups of B swapped": [refed("mamba", "mixer.in_proj.weight", halves("B")), 0, "B"],
  "halves of the groups of C swapped": [refed("mamba", "mixer.in_proj.weight", halves("C")), 0, "C"],
  "dt a row too early": [refed("mamba", "mixer.in_proj.weight", moved("dt", -1)), 0, "dt"],
  "taps of B and C swapped": [
    refed("mamba", "mixer.conv1d.weight", exchange("taps.B", "taps.C")),
    0,
    "conv.B",
  ],
  "biases of B and C swapped": [
    refed("mamba", "mixer.conv1d.bias", exchange("bias.B", "bias.C")),
    0,
    "conv.B",
  ],
  "A_log and dt_bias swapped": [renamed("mamba", "mixer.A_log", "mixer.dt_bias"), 0, "y"],
  "D and dt_bias swapped": [renamed("mamba", "mixer.D", "mixer.dt_bias"), 0, "y"],
  "k and v swapped": [renamed("attention", "mixer.k_proj.weight", "mixer.v_proj.weight"), 5, "k"],
  "halves of the query heads swapped": [refed("attention", "mixer.q_proj.weight", halves("q")), 5, "q"],
  "halves of up swapped": [refed("mlp", "mixer.up_proj.weight", halves("up")), 1, "up"],
  "words of the head swapped": [refed("head", "lm_head.weight", halves("logits")), 13, "logits"],
  "the token table's other name": [
    (native) => ({ ...native, embedding: ["lm_head.weight"] }),
    -1,
    "residual",
  ],
};

function named(rung: LogitsRung, layer: number, door: string): void {
  score.planted++;
  expect(rung.verdict).toBe("different");
  expect(rung.bad[0]).toMatchObject({ layer, door });
  score.named++;
}

describe.each([
  ["kept", source],
  ["recast to FP8", fp8],
] as const)("a wrong use of one side, %s", (_, destination) => {
  it.each(Object.entries(FAULTS))("%s", async (_, [break_, layer, door]) => {
    const [right] = nemotronH.forward.natives;
    named(await logitsRung(source, run(destination, break_(right!)), QUICK, PROMPT), layer, door);
  });

  it("none: no door is bad, and the bytes agree", async () => {
    const rung = await logitsRung(source, destination, QUICK, PROMPT);
    expect(rung.bad).toEqual([]);
    expect(rung.metrics.wiring).toEqual({ maxRelL2: 0, limit: 0 });
    await using pool = new Pool(poolSize(QUICK.memoryBytes!, 1));
    const options = { pool, own: true, advance() {}, signal: undefined };
    const bytes = await compareBytes({ ...options, a: source, b: destination });
    expect(bytes.differences).toEqual([]);
  });
});

describe("a wrong scale", () => {
  const [up1, up3] = [1, 3].map((layer) => `backbone.layers.${layer}.mixer.up_proj.weight`);
  const scaled = (changed: Readonly<Record<string, number>>): Ready => ({
    ...fp8,
    scales: new Map([
      ...fp8.scales,
      ...Object.entries(changed).map(([n, s]) => [n, Float32Array.of(s)] as const),
    ]),
  });
  const scale = (name: string) => fp8.scales.get(name)![0]!;

  it("of the neighbour is a wrong wiring at both", async () => {
    const wrong = scaled({ [up1!]: scale(up3!), [up3!]: scale(up1!) });
    const rung = await logitsRung(source, wrong, QUICK, PROMPT);
    named(rung, 1, "up");
    expect([...new Set(rung.bad.map(({ layer }) => layer))]).toEqual([1, 3]);
  });
});

it("--kl and --top1 widen the quality of a recast, and nothing else", async () => {
  const [right] = nemotronH.forward.natives;
  const wide = { ...QUICK, kl: 1e9, top1: 0 };
  const wrong = run(fp8, FAULTS["halves of the groups of B swapped"]![0](right!));
  expect((await logitsRung(source, wrong, wide, PROMPT)).verdict).toBe("different");
  const keptRung = await logitsRung(source, run(source, FAULTS["k and v swapped"]![0](right!)), wide, PROMPT);
  expect(keptRung).toMatchObject({ verdict: "different", limits: { klMean: 0, klP99: 0, top1: 1 } });
  const good = await logitsRung(source, fp8, wide, PROMPT);
  expect(good).toMatchObject({ verdict: "within", limits: { klMean: 1e9, klP99: 1e10, top1: 0 } });
});
