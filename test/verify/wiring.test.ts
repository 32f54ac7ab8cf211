/**
 * Faults to which the bytes rung must be blind, because they lie in code and not in bytes: one side runs with a
 * wrong table of uses, or decodes under a wrong scale. The logits rung alone must see each, and name its door.
 */
import { afterAll, describe, expect, it } from "vitest";
import { convert } from "../../src/api/convert.ts";
import type { VerifyOptions } from "../../src/certificate/options.ts";
import { loadModelWithScales, type ModelWithScales } from "../../src/checkpoint/load.ts";
import { seededIds } from "../../src/inference/prompts.ts";
import { compareBytes } from "../../src/verify/bytes/bytes.ts";
import { type LogitsRung, logitsRung } from "../../src/verify/logits.ts";
import { poolSize, WorkerPool } from "../../src/workers/pool.ts";
import { golden, workFolder } from "../support/goldens.ts";
import { EXPERT_FAULTS, FAULTS, LATENT_FAULTS } from "../support/verify/code-faults.ts";
import { copyOf, opened } from "../support/verify/planted.ts";
import { runBy, unpaired } from "../support/verify/wiring.ts";

const work = workFolder();
const of = (tokens: number) => ({ ids: seededIds(tokens, 0, 512), textTokens: 0 });
const PROMPT = of(17);
const QUICK: VerifyOptions = { tokens: 17, threads: 1, memoryBytes: 64 * 1024 * 1024 };
const score = { planted: 0, named: 0 };
afterAll(() => console.log(`faults in code: ${score.named}/${score.planted} named by the logits rung alone`));

/** A golden, and a recast of it. */
async function pair(name: string): Promise<Readonly<Record<"source" | "fp8", ModelWithScales>>> {
  const out = `${work}/${name}`;
  await convert(golden(name), out, { to: "hf", dtype: "fp8-e4m3", keepEnds: 0, verify: "off" });
  const [source, fp8] = [await copyOf(golden(name)), await copyOf(out)];
  return {
    source: await loadModelWithScales(await opened(source), {}),
    fp8: await loadModelWithScales(await opened(fp8), {}),
  };
}

const { source, fp8 } = await pair("sharded");
const experts = await pair("moe");
const latent = await pair("latent-moe");

function named(rung: LogitsRung, layer: number, door: string): void {
  score.planted++;
  expect(rung.verdict).toBe("different");
  expect(rung.bad[0]).toMatchObject({ layer, door });
  score.named++;
}

describe.each([
  ["sharded, kept", source, source, FAULTS],
  ["sharded, recast to FP8", source, fp8, FAULTS],
  ["moe, kept", experts.source, experts.source, EXPERT_FAULTS],
  ["moe, recast to FP8", experts.source, experts.fp8, EXPERT_FAULTS],
  ["latent-moe, kept", latent.source, latent.source, LATENT_FAULTS],
  ["latent-moe, recast to FP8", latent.source, latent.fp8, LATENT_FAULTS],
] as const)("a wrong use of one side, %s", (_, right, destination, faults) => {
  it.each(Object.entries(faults))("%s", async (_, [break_, layer, door]) => {
    named(await logitsRung(right, runBy(destination, break_), QUICK, PROMPT), layer, door);
  });

  it.each(Object.entries(faults))("%s, where every product is computed", async (_, [break_, layer, door]) => {
    using _alone = unpaired();
    named(await logitsRung(right, runBy(destination, break_), QUICK, PROMPT), layer, door);
  });

  it("none: no door is bad, and the bytes agree", async () => {
    const rung = await logitsRung(right, destination, QUICK, PROMPT);
    expect(rung.bad).toEqual([]);
    expect(rung.metrics.wiring).toEqual({ maxRelL2: 0, limit: 0 });
    await using pool = new WorkerPool(poolSize(QUICK.memoryBytes!, 1));
    const options = { pool, strictScales: true, phase: "bytes" as const, watch: () => {}, signal: undefined };
    const bytes = await compareBytes({ ...options, a: right, b: destination });
    expect(bytes.differences).toEqual([]);
  });
});

describe("experts", () => {
  const up = (expert: number) => `backbone.layers.4.mixer.experts.${expert}.up_proj.weight`;
  /** The same checkpoint, with two stored tensors found by one another's names. */
  const confused = (side: ModelWithScales, a: string, b: string): ModelWithScales => {
    const { tensors } = side;
    const as = (name: string, other: string) => [name, { ...tensors.get(other)!, name }] as const;
    const other = new Map([...tensors, as(a, b), as(b, a)]);
    return { ...side, tensors: other };
  };

  it.each([1, 17])(
    "two permuted are named, each by its own door, whatever %i tokens chose",
    async (tokens) => {
      const wrong = confused(experts.source, up(2), up(7));
      const rung = await logitsRung(experts.source, wrong, QUICK, of(tokens));
      named(rung, 4, "expert.up.2");
      const doors = rung.bad.filter(({ layer }) => layer === 4).map(({ door }) => door);
      expect(doors).toEqual(expect.arrayContaining(["expert.up.2", "expert.up.7"]));
      expect(doors.filter((door) => door.startsWith("expert.up"))).toHaveLength(2);
    },
  );

  it("the source's choice is followed: a recast's own choices are counted, and move no door", async () => {
    const kept = await logitsRung(experts.source, experts.source, QUICK, of(130));
    expect(kept.metrics.routing).toEqual({ flips: 0 });
    const recast = await logitsRung(experts.source, experts.fp8, QUICK, of(130));
    expect(recast.metrics.routing.flips).toBeGreaterThan(0);
    expect(recast).toMatchObject({ verdict: "within", bad: [] });
  });

  it("prediction layers are run, and nothing of the model goes unread", async () => {
    const { metrics } = await logitsRung(latent.source, latent.source, QUICK, PROMPT);
    expect(metrics.unread).toEqual([]);
    expect(metrics.layers.map(({ layer }) => layer)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 9, 10]);
  });
});

describe("a wrong scale", () => {
  const [up1, up3] = [1, 3].map((layer) => `backbone.layers.${layer}.mixer.up_proj.weight`);
  const scaled = (changed: Readonly<Record<string, number>>): ModelWithScales => ({
    ...fp8,
    scaleValues: new Map([
      ...fp8.scaleValues,
      ...Object.entries(changed).map(([n, s]) => [n, Float32Array.of(s)] as const),
    ]),
  });
  const scale = (name: string) => fp8.scaleValues.get(name)![0]!;

  it("of the neighbour is a wrong wiring at both", async () => {
    const wrong = scaled({ [up1!]: scale(up3!), [up3!]: scale(up1!) });
    const rung = await logitsRung(source, wrong, QUICK, PROMPT);
    named(rung, 1, "up");
    expect([...new Set(rung.bad.map(({ layer }) => layer))]).toEqual([1, 3]);
  });

  it("under equal codes is a wrong wiring", async () => {
    const wrong = scaled({ [up3!]: 2 * scale(up3!) });
    named(await logitsRung(fp8, wrong, QUICK, PROMPT), 3, "up");
  });
});

it("--kl and --top1 widen the quality of a recast, and nothing else", async () => {
  const wide = { ...QUICK, kl: 1e9, top1: 0 };
  const wrong = runBy(fp8, FAULTS["halves of the groups of B swapped"]![0]);
  expect((await logitsRung(source, wrong, wide, PROMPT)).verdict).toBe("different");
  const keptRung = await logitsRung(source, runBy(source, FAULTS["k and v swapped"]![0]), wide, PROMPT);
  expect(keptRung).toMatchObject({ verdict: "different", limits: { klMean: 0, klP99: 0, top1: 1 } });
  const good = await logitsRung(source, fp8, wide, PROMPT);
  expect(good).toMatchObject({ verdict: "within", limits: { klMean: 1e9, klP99: 1e10, top1: 0 } });
});
