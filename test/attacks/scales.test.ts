/** Codes are the nearest under the stored scale in each of these: the scale itself is what is judged. */
import { bitsOfF32, f32OfBits } from "../../src/core/float.ts";
import { floatsOf, golden } from "../support/goldens.ts";
import { type Copy, codesOf, copyOf, oneF32 } from "../support/verify/planted.ts";
import { type Attack, attacks, verify } from "./attack.ts";
import { type Change, namesOf, pair, recastPair } from "./changes.ts";

const plain: Readonly<Record<string, Copy>> = {
  tiny: await copyOf(golden("tiny")),
  moe: await copyOf(golden("moe")),
};

/** Weights of an FP8 recast rounded anew, under scales that are `factor` times as large. */
const rescaled =
  (factor: number, which: (names: readonly string[]) => readonly string[], name = "tiny") =>
  async (at: string) => {
    const change: Change = (one) => {
      const weights = namesOf(one, /_scale$/).map((scale) => scale.slice(0, -"_scale".length));
      for (const weight of which(weights)) {
        const scale = Math.fround(floatsOf(one.get(`${weight}_scale`))[0]! * factor);
        one.put(`${weight}_scale`, { bytes: oneF32(scale) });
        one.put(weight, { bytes: codesOf(plain[name]!.tensors.get(weight)!, "F8_E4M3", scale) });
      }
    };
    return await verify(...(await recastPair(at, change, name)));
  };

const all = (names: readonly string[]) => names;
const first = (names: readonly string[]) => names.filter((one) => one.endsWith("in_proj.weight")).slice(0, 1);
const experts = (names: readonly string[]) => names.filter((one) => one.includes(".experts."));

/** Some weights of a copy as FP8 by hand: every code is 0 under a scale of 2^30, which is the right rounding. */
const zeroed = (name: string, which: (name: string) => boolean) => async (at: string) => {
  const change: Change = (one) => {
    const ignore: string[] = [];
    for (const weight of namesOf(one, /\.weight$/)) {
      const array = one.get(weight);
      if (array.shape.length !== 2 || weight.includes("embed")) continue;
      const module = weight.slice(0, -".weight".length);
      if (!which(weight)) ignore.push(module, module.replace(/^backbone\./, "model."));
      else {
        one.put(weight, { dtype: "F8_E4M3", bytes: codesOf(array, "F8_E4M3", 2 ** 30) });
        one.add(`${weight}_scale`, "F32", [1], oneF32(2 ** 30));
      }
    }
    one.config({ quantization_config: { ...QUANTIZATION, ignore: [...new Set(ignore)] } });
  };
  return await verify(...(await pair(at, { golden: name, b: change })));
};

const eight = { num_bits: 8, type: "float", symmetric: true };
/** As compressed-tensors writes it: one scale a weight, activations scaled as they come. */
const QUANTIZATION = {
  quant_method: "compressed-tensors",
  format: "float-quantized",
  quantization_status: "compressed",
  config_groups: {
    group_0: {
      targets: ["Linear"],
      weights: { ...eight, strategy: "tensor", dynamic: false },
      input_activations: { ...eight, strategy: "token", dynamic: true },
    },
  },
};

const rows: readonly Attack[] = [
  {
    name: "scale-zeroes-one",
    what: "one scale is 2^40 too large: all its codes are 0",
    right: "red",
    run: rescaled(2 ** 40, first),
  },
  {
    name: "scale-zeroes-all",
    what: "every scale is 2^40 too large",
    right: "red",
    run: rescaled(2 ** 40, all),
  },
  {
    name: "scale-coarse-all",
    what: "every scale is 2^14 too large: a few subnormal codes are left",
    right: "red",
    run: rescaled(2 ** 14, all),
  },
  {
    name: "scale-zeroes-experts",
    what: "the scales of all experts are 2^40 too large",
    right: "red",
    run: rescaled(2 ** 40, experts, "moe"),
  },
  {
    name: "scale-zeroes-mtp",
    what: "projections of a prediction layer are 0 under a scale of 2^30: no quality is measured there",
    right: "red",
    run: zeroed("latent-moe", (weight) => /^mtp\.(layers\.1\..*latent|.*shared)/.test(weight)),
  },
  {
    name: "scale-zeroes-later-mlp",
    what: "the up projections of all MLPs but the first are 0 under a scale of 2^30",
    right: "red",
    run: zeroed("tiny", (weight) => /layers\.[2-9]\..*up_proj/.test(weight)),
  },
  {
    name: "scale-power-of-two",
    what: "one scale is twice amax/max, as tools write that round up: honest",
    right: "green",
    run: rescaled(2, first),
  },
  {
    name: "scale-two-ulp-low",
    what: "one scale is 4 ulp below amax/max, and the codes are as they were",
    right: "red",
    async run(at) {
      const change: Change = (one) => {
        const [weight] = first(namesOf(one, /in_proj\.weight$/));
        const name = `${weight}_scale`;
        one.put(name, { bytes: oneF32(f32OfBits(bitsOfF32(floatsOf(one.get(name))[0]!) - 4)) });
      };
      return await verify(...(await recastPair(at, change)));
    },
  },
];

attacks("scales", rows);
