/** How llama.cpp names the tensors of a Mamba-2 mixer, and the forms in which it reads them. */
import { reshape, shapeOf } from "../../../core/mapping/layout.ts";
import type { Is, Rule } from "../../dialect.ts";
import type { MambaDims } from "../mamba/dims.ts";
import { layerRules } from "./attention-rules.ts";
import { asF32 } from "./rules.ts";

/** A vector of heads as a column. */
const column =
  <D extends MambaDims>(role: string): Is<D> =>
  (of) => {
    const vector = of(role);
    return reshape(vector, [...shapeOf(vector), 1]);
  };

/**
 * Rules without the norm before the mixer. llama.cpp has no biases of the two projections.
 *
 * @param on kinds of layers with a Mamba mixer
 */
export function mambaRules<D extends MambaDims>(on: readonly string[]): readonly Rule<D>[] {
  const vectors: readonly Rule<D>[] = [
    ...layerRules<D>(on, { "ssm_conv1d.bias": "ssm.conv.bias", "ssm_dt.bias": "ssm.dt_bias" }),
    { name: "ssm_a", on, stores: "-exp", is: column("ssm.A_log") },
    { name: "ssm_d", on, is: column("ssm.D") },
    { name: "ssm_conv1d.weight", on, is: (of, d) => reshape(of("ssm.conv"), [d.conv, d.taps]) },
    // a row for each group that is normed by itself
    { name: "ssm_norm.weight", on, is: (of, d) => reshape(of("ssm.norm"), [d.groups, d.inner / d.groups]) },
  ];
  return [
    ...layerRules<D>(on, { "ssm_in.weight": "ssm.in", "ssm_out.weight": "ssm.out" }),
    ...vectors.map(asF32),
  ];
}
