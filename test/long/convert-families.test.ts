/** Each family beside Nemotron-H: there and back byte for byte, recast, and certified on one number of threads for another. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { check } from "../../src/api/check.ts";
import { convert } from "../../src/api/convert.ts";
import { verify } from "../../src/api/verify.ts";
import { CERTIFICATE_FILE } from "../../src/core/checkpoint.ts";
import type { VerifyReport } from "../../src/verify/report.ts";
import { arraysOf, FAMILIES, familyGolden, filesOf, workFolder } from "../support/goldens.ts";
import { metricsWith } from "../support/rungs.ts";

const work = workFolder();

/** All controls, none of them void in every layer. */
function expectControls(report: VerifyReport): void {
  const { controls } = metricsWith(report, "logits", "controls");
  expect(controls.length).toBeGreaterThan(10);
  expect(controls.filter(({ caught }) => caught !== true)).toEqual([]);
}

describe.each(FAMILIES)("%s", (name) => {
  const source = familyGolden(name);
  const at = (kind: string) => join(work, `${name}-${kind}`);

  it("to packed and back is byte for byte the same", async () => {
    const { verification } = await convert(source, at("packed"), { to: "packed", threads: 1 });
    expect(verification!.verdict).toBe("same");
    expectControls(verification!);
    await convert(at("packed"), at("back"), { to: "hf", threads: 2 });
    for (const file of ["model.safetensors", "config.json"])
      expect(readFileSync(join(at("back"), file)).equals(readFileSync(join(source, file))), file).toBe(true);
  });

  it("two conversions on other numbers of threads are one", async () => {
    await convert(source, at("one"), { to: "hf", threads: 1 });
    await convert(source, at("two"), { to: "hf", threads: 2 });
    expect(filesOf(at("one"))).toEqual(filesOf(at("two")));
    const [one, two] = [at("one"), at("two")].map((folder) =>
      readFileSync(join(folder, CERTIFICATE_FILE), "utf8"),
    );
    expect(one).toBe(two);
  });

  it("recast to FP8 is within the limits, and is what was certified", async () => {
    const options = { to: "hf", dtype: "fp8-e4m3", threads: 2 } as const;
    const { verification } = await convert(source, at("fp8"), options);
    expect(verification!.verdict).toBe("within");
    expectControls(verification!);
    expect((await verify(at("fp8"), undefined, { threads: 1 })).verdict).toBe("same");
  });

  it("calibrated, it has scales of the cache under the names that engines read", async () => {
    const options = { to: "hf", dtype: "fp8-e4m3", calibrate: true, kvCache: "fp8" } as const;
    const { verification } = await convert(source, at("calibrated"), options);
    expect(verification!.verdict).toBe("within");
    const names = [...(await arraysOf(join(at("calibrated"), "model.safetensors"))).keys()];
    const layers = names.flatMap(
      (one) => /^(model\.layers\.\d+)\.self_attn\.k_proj\.weight$/.exec(one)?.[1] ?? [],
    );
    expect(layers.length).toBeGreaterThan(0);
    expect(names.filter((one) => /(?<!weight|input)_scale$/.test(one)).sort()).toEqual(
      layers.flatMap((layer) => [`${layer}.self_attn.k_scale`, `${layer}.self_attn.v_scale`]).sort(),
    );
  });
});

it("gate in FP8 beside up in BF16 is written with a warning, and `check` finds it", async () => {
  const [recipe, out] = [join(work, "gate.yaml"), join(work, "gate")];
  writeFileSync(recipe, "id: gate\ncast: [mlp.gate]\n");
  const warnings: string[] = [];
  await convert(familyGolden("llama"), out, {
    ...{ to: "hf", dtype: "fp8-e4m3", recipe, verify: "off" },
    watch: (event) => event.type === "warning" && warnings.push(event.message),
  });
  expect(warnings.join()).toMatch(/model\.layers\.0\.mlp: some of it is FP8 and some is not/);
  const { findings } = await check(out);
  const fused = findings.filter(({ rule }) => rule === "engine-fused");
  expect(fused.map(({ message }) => message).join()).toMatch(
    /fuses gate and up .* up_proj of model\.layers\.0\.mlp is BF16/,
  );
});
