/**
 * No false alarm: every golden to every format that is written, kept and recast, each verified in full, and home again
 * to the same content root. Sources, formats, types and ranks come from the lists, so a new one joins by itself; what
 * cannot be written must be refused, for the reason that the lists give.
 */
import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it, onTestFinished } from "vitest";
import type { Format } from "../../formats/format.ts";
import { formats } from "../../formats/index.ts";
import { type ConvertOptions, convert } from "../../src/api/convert.ts";
import { plan } from "../../src/api/plan.ts";
import { openCheckpoint } from "../../src/checkpoint/open.ts";
import { pairScales } from "../../src/checkpoint/scales/pair.ts";
import type { DType, RecastTarget } from "../../src/core/dtype.ts";
import { families } from "../../src/families/index.ts";
import { matchRoles } from "../../src/families/match.ts";
import type { MatchedModel } from "../../src/families/model.ts";
import { nemotronH } from "../../src/families/nemotron-h/index.ts";
import type { Verdict } from "../../src/verify/report.ts";
import { codeOf } from "../support/errors.ts";
import { golden, workFolder } from "../support/goldens.ts";
import { metricsWith } from "../support/rungs.ts";
import { expectClean, keepScore } from "../support/verify/score.ts";

const work = workFolder();
const score = keepScore("clean conversions");
const QUICK = { tokens: 16, threads: 1, memoryBytes: 64 * 1024 * 1024 } as const;

/** True vocabulary of goldens that hold only padded rows. */
const TOLD: Readonly<Record<string, number>> = { "megatron-tp2": 500, "nemo1-zarr-tp2.nemo": 500 };
const RANKS: readonly Pick<ConvertOptions, "tp" | "pp">[] = [{}, { tp: 2, pp: 2 }, { tp: 4 }];
const FP8 = { dtype: "fp8-e4m3", recipe: "all-linear" } as const;
const RECASTS = [{ dtype: "keep" }, { dtype: "bf16" }, FP8] as const;

interface Source {
  readonly name: string;
  readonly path: string;
  readonly told: Pick<ConvertOptions, "vocabSize">;
  readonly format: Format;
  readonly model: MatchedModel;
  readonly dtypes: ReadonlySet<DType>;
}

async function sourceAt(path: string, name: string): Promise<Source> {
  const told = TOLD[name] === undefined ? {} : { vocabSize: TOLD[name] };
  const checkpoint = await openCheckpoint(path, told);
  const model = matchRoles(checkpoint, families, pairScales(checkpoint.tensors).scaleTensors);
  const format = formats.find(({ id }) => id === checkpoint.format)!;
  const dtypes = new Set([...model.tensors.values()].map(({ dtype }) => dtype));
  return { name, path, told, format, model, dtypes };
}

/** Every golden; a format that no golden has, and FP8, in copies made here. */
async function sources(): Promise<readonly Source[]> {
  const names = readdirSync(golden("")).filter((name) => !/^megatron$|\.json$/.test(name)); // those hold no weights
  const found = await Promise.all(names.map((name) => sourceAt(golden(name), name)));
  for (const { id, writes } of formats) {
    if (writes === undefined || found.some(({ format }) => format.id === id)) continue;
    const path = join(work, `sharded${writes.endings[0] ?? ""}`);
    await convert(golden("sharded"), path, { to: id, verify: "off" });
    found.push(await sourceAt(path, `sharded as ${id}`));
  }
  for (const name of ["tiny", "moe"]) {
    const path = join(work, `${name}-fp8`);
    await convert(golden(name), path, { to: "hf", ...FP8, verify: "off" });
    found.push(await sourceAt(path, `${name} in FP8`));
  }
  return found;
}

/** Of the types of a source, those that its destination will hold. */
function typesAfter(dtypes: ReadonlySet<DType>, dtype: RecastTarget): readonly DType[] {
  if (dtype === "fp8-e4m3") return [...dtypes, "F8_E4M3"];
  return [...dtypes].filter((type) => dtype === "keep" || !type.startsWith("F8"));
}

interface Direction {
  readonly source: Source;
  readonly to: Format;
  readonly options: Pick<ConvertOptions, "dtype" | "recipe" | "tp" | "pp">;
}

function directionsFrom(source: Source): readonly Direction[] {
  const dialects = families.flatMap((family) => family.dialects);
  return formats.flatMap((to): readonly Direction[] => {
    if (to.writes === undefined) return [{ source, to, options: {} }];
    const ranked = dialects.some(({ id, ranked }) => id === to.writes!.dialect && ranked === true);
    return (ranked ? RANKS : [{}]).flatMap((ranks) =>
      RECASTS.map((recast) => ({ source, to, options: { ...recast, ...ranks } })),
    );
  });
}

function titleOf({ to, options: { dtype, tp, pp } }: Direction): string {
  const ranks = Object.entries({ tp, pp }).flatMap(([name, of]) =>
    of === undefined ? [] : [`${name} ${of}`],
  );
  return [to.id, ...(dtype === undefined ? [] : [dtype]), ...ranks].join(", ");
}

/** Why a direction cannot be gone; null where it can. */
function refusalOf({ source, to, options }: Direction): "NOT_WRITTEN" | "PLAN_IMPOSSIBLE" | null {
  if (to.writes === undefined) return "NOT_WRITTEN";
  const stored = typesAfter(source.dtypes, options.dtype!).every((type) => to.writes!.dtypes.includes(type));
  const shared = nemotronH.dims(source.model.settings).groups % (options.tp ?? 1) === 0;
  const pattern = String(source.model.settings.pattern);
  const runs = to.id !== "gguf" || !(pattern.includes("-") && pattern.includes("E")); // a limit of llama.cpp
  return stored && shared && runs ? null : "PLAN_IMPOSSIBLE";
}

/** Whether a conversion without a recast changes types: llama.cpp reads vectors as F32 only, and they return to their own type. */
const widens = ({ source, to }: Direction): boolean => (source.format.id === "gguf") !== (to.id === "gguf");

/** Directions in which nothing is left to recast. */
let alike = 0;
afterAll(() => console.log(`directions in which nothing is left to recast: ${alike}`));

describe.each(await sources())("$name", (source) => {
  const directions = directionsFrom(source).map((direction, i) => ({
    ...direction,
    title: titleOf(direction),
    out: join(work, `${source.name} ${i}`),
  }));

  it.each(directions)("to $title", async (direction) => {
    const { to, options, out, title } = direction;
    const all = { to: to.id, ...QUICK, ...source.told, ...options };
    const refusal = refusalOf(direction);
    if (refusal !== null) {
      expect(await codeOf(() => plan(source.path, out, all))).toBe(refusal);
      const kind = `${refusal} to ${title}`;
      score.refused.set(kind, [...(score.refused.get(kind) ?? []), source.name]);
      return;
    }
    if (options.dtype !== "keep" && (await plan(source.path, out, all)).exact) {
      alike++; // every bit is kept, as "keep" does
      return;
    }
    onTestFinished(() => {
      for (const path of [out, `${out}, back`]) rmSync(path, { recursive: true, force: true });
    });
    const { exact, verification, destination } = await convert(source.path, out, all);
    expect(exact).toBe(options.dtype === "keep" && !widens(direction));
    expectClean(score, verification!, exact ? "same" : "within");
    expect(verification!.rungs.map(({ rung }) => rung)).toEqual(["cover", "bytes", "logits"]);
    expect(verification!.findings).toEqual(exact ? [] : [expect.stringContaining("reported, not judged")]);
    const { controls } = metricsWith(verification!, "logits", "controls");
    expect(controls.filter(({ caught }) => caught).length).toBeGreaterThan(30);
    expect(verification!.roots.a === verification!.roots.b).toBe(exact);

    if (!exact) return; // it has a root of its own
    const home = source.format.writes === undefined ? "hf" : source.format.id;
    const back = await convert(out, `${out}, back`, { to: home, threads: 1, verify: "bytes" });
    expect(back.destination.root).toBe(destination.root);
  });
});

it.each(["f32", "f16", "fp8-e5m2"] as const)(
  "sharded to hf, %s, to keep and to recast again",
  async (dtype) => {
    const recast = async (from: string, options: ConvertOptions, due: Verdict) => {
      const out = join(work, `${dtype} ${score.clean}`);
      const { verification } = await convert(from, out, { to: "hf", ...QUICK, ...options });
      expectClean(score, verification!, due);
      return out;
    };
    const there = await recast(golden("sharded"), { dtype }, "within");
    await recast(there, {}, "same");
    await recast(there, { dtype: "fp8-e4m3" }, "within");
    await recast(there, { dtype: dtype === "f32" ? "bf16" : "f32" }, "within");
  },
);
