/** What a config says of quantisation, and the tensors that are stored: one without the other loads as another model. */
import { oneF32 } from "../support/verify/planted.ts";
import { type Attack, attacks, verify } from "./attack.ts";
import { type Change, compared, namesOf, recastPair } from "./changes.ts";

const recast = (change: Change) => async (at: string) => await verify(...(await recastPair(at, change)));

/** The quantization_config that our own recast writes, changed. */
// biome-ignore lint/suspicious/noExplicitAny: compressed-tensors' own keys
const said = (change: (quantization: any) => void): Change => {
  return (one) => {
    const quantization = structuredClone(one.json("config.json").quantization_config);
    change(quantization);
    one.config({ quantization_config: quantization });
  };
};

const staticActivations = said((quantization) => {
  const { input_activations: inputs } = quantization.config_groups.group_0;
  Object.assign(inputs, { strategy: "tensor", dynamic: false });
});

const rows: readonly Attack[] = [
  {
    name: "quant-config-missing",
    what: "quantization_config is gone from an FP8 folder: engines load codes as weights",
    right: "red",
    run: recast((one) => one.config({ quantization_config: undefined })),
  },
  {
    name: "quant-config-ignore",
    what: "every FP8 module is on the ignore list: engines load codes as plain weights",
    right: "red",
    run: recast(
      said((quantization) => {
        quantization.ignore = ["re:.*"];
      }),
    ),
  },
  {
    name: "quant-input-scales",
    what: "static activations are declared, with an input_scale of 1e-30 beside each FP8 weight",
    right: "red",
    run: recast((one) => {
      staticActivations(one);
      for (const name of namesOf(one, /weight_scale$/))
        one.add(name.replace("weight_scale", "input_scale"), "F32", [1], oneF32(1e-30));
    }),
  },
  {
    name: "quant-config-on-plain",
    what: "an unquantised copy has a quantization_config",
    right: "red",
    run: compared({
      b: (one) => one.config({ quantization_config: { quant_method: "fp8", activation_scheme: "dynamic" } }),
    }),
  },
];

attacks("quantization_config", rows);
