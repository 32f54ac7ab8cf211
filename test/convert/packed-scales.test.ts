/** A packed file of weights with several scales each: it is the folder that a direct conversion writes, and its scales are sealed. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { packed } from "../../formats/packed/format.ts";
import { convert } from "../../src/api/convert.ts";
import { diff } from "../../src/api/diff.ts";
import { logits } from "../../src/api/logits.ts";
import { verify } from "../../src/api/verify.ts";
import { fileStore } from "../../src/io/file.ts";
import type { WEIGHT_SCALES } from "../../src/plugins/quantization-dialect.ts";
import { filesOf, golden, workFolder } from "../support/goldens.ts";
import { flip } from "../support/packed.ts";
import { smallModel } from "../support/small.ts";

const work = workFolder();
const PASS = { tokens: 8, backend: "wasm", threads: 1 } as const;
const cast = (quantScales: (typeof WEIGHT_SCALES)[number]) =>
  ({ dtype: "fp8-e4m3", recipe: "nemotron-h", keepEnds: 1, quantScales }) as const;

describe.each(["row", "block"] as const)("one scale a %s", (quantScales) => {
  const file = join(work, `${quantScales}.isologit`);

  it("is verified, and comes to the folder of a direct conversion", async () => {
    const { verification } = await convert(golden("tiny"), file, { ...cast(quantScales), ...PASS });
    expect(verification!.verdict).toBe("within");
    const [home, direct] = [join(work, `${quantScales}-home`), join(work, `${quantScales}-direct`)];
    await convert(file, home, { to: "hf", verify: "off" });
    await convert(golden("tiny"), direct, { ...cast(quantScales), verify: "off" });
    expect(filesOf(home)).toEqual(filesOf(direct));
    expect((await verify(file, undefined, { verify: "bytes" })).verdict).toBe("same");
  });

  it("is recorded with the tensor of the scales", async () => {
    const { recasts, tensors } = await packed.read(await fileStore(file));
    const names = new Set(tensors.map(({ name }) => name));
    expect(recasts.length).toBeGreaterThan(5);
    for (const { tensor, scales, amax, scale, sourceDigest } of recasts) {
      expect([scales, amax, scale]).toEqual([`${tensor}_scale`, undefined, undefined]);
      expect(names).toContain(scales);
      expect(sourceDigest).toMatch(/^[0-9a-f]{64}$/);
    }
  });
});

it("MXFP8 of the weights whose rows 32 divides comes to the folder of a direct conversion", async () => {
  const recipe = join(work, "up.yaml");
  writeFileSync(recipe, "id: up\ncast: [mlp.up]\n");
  const options = { dtype: "fp8-e4m3", recipe, quantScales: "mxfp8", verify: "off" } as const;
  const [file, home, direct] = ["mx.isologit", "mx-home", "mx-direct"].map((name) => join(work, name));
  await convert(golden("tiny"), file!, { ...options, verify: "bytes" });
  await convert(file!, home!, { to: "hf", verify: "off" });
  await convert(golden("tiny"), direct!, options);
  expect(filesOf(home!)).toEqual(filesOf(direct!));
});

describe("in a packed file, read in parts", async () => {
  // 655,360 queries: more than a buffer of this memory holds
  const widths = { hidden_size: 256, vocab_size: 512, num_attention_heads: 16, head_dim: 160 };
  const model = await smallModel(join(work, "model"), "M-*", widths, 3_000_000);
  const small = { threads: 1, memoryBytes: 4 << 20 } as const;
  const whole = join(work, "whole.isologit");
  const mx = { dtype: "fp8-e4m3", recipe: "all-linear", quantScales: "mxfp8", verify: "off" } as const;
  await convert(model, whole, mx);
  const CODES = "backbone.layers.2.mixer.q_proj.weight";
  const { tensors } = await packed.read(await fileStore(whole));
  let counter = 0;
  const out = (ending = "") => join(work, `out-${counter++}${ending}`);

  it.each([CODES, `${CODES}_scale`])("a damaged %s stops every reader", async (name) => {
    const { pieces } = tensors.find((tensor) => tensor.name === name)!;
    const damaged = flip(whole, out(".isologit"), pieces[0]!.offset + 4000);
    const readers: Readonly<Record<string, () => Promise<unknown>>> = {
      verify: () => verify(model, damaged, { verify: "bytes", ...small }),
      "verify, the other way": () => verify(damaged, whole, { verify: "bytes", ...small }),
      diff: () => diff(whole, damaged, small),
      logits: () => logits(damaged, { ...PASS, out: out() }),
      "to BF16, unverified": () =>
        convert(damaged, out(), { to: "hf", dtype: "bf16", verify: "off", ...small }),
      "to hf, unverified": () => convert(damaged, out(), { to: "hf", verify: "off", ...small }),
    };
    for (const [reader, read] of Object.entries(readers)) {
      const error = await read().catch((caught: unknown) => caught);
      expect(error, reader).toMatchObject({ code: "DIGEST_MISMATCH", at: { tensor: name } });
    }
  });
});
