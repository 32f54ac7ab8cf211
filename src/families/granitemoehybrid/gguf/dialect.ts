/** llama.cpp's names for the tensors of Granite 4.0. */
import { concat, type Layout, reshape, shapeOf, slice } from "../../../core/mapping/layout.ts";
import type { Dialect, Is, Rule } from "../../dialect.ts";
import { attentionRules, layerRules, outerRules } from "../../parts/gguf/attention-rules.ts";
import { ggufDialect } from "../../parts/gguf/dialect.ts";
import { mambaRules } from "../../parts/gguf/mamba-rules.ts";
import { asF32 } from "../../parts/gguf/rules.ts";
import { stackExperts } from "../../parts/stacked-experts.ts";
import type { GraniteDims } from "../dims.ts";
import { limits, readSettings, writeConfig } from "./config.ts";

type Half = "gate" | "up";

/** The rows of gate, or of up, of a matrix that has both. */
function half(matrix: Layout, which: Half): Layout {
  const [rows] = shapeOf(matrix) as [number];
  return which === "gate" ? slice(matrix, 0, 0, rows / 2) : slice(matrix, 0, rows / 2, rows);
}

/** The matrices of gate, or of up, of all experts: [experts, rows, columns]. */
const halvesOfExperts =
  (which: Half): Is<GraniteDims> =>
  (of, d) =>
    concat(
      0,
      Array.from({ length: d.experts }, (_, expert) => {
        const matrix = half(of("moe.in", expert), which);
        return reshape(matrix, [1, ...shapeOf(matrix)]);
      }),
    );

/** The MLP that each token uses: alone in dense models, and beside experts. */
const sharedRules = (on: string, role: string, ending: string): readonly Rule<GraniteDims>[] => [
  { name: `ffn_gate${ending}.weight`, on: [on], is: (of) => half(of(`${role}.in`), "gate") },
  { name: `ffn_up${ending}.weight`, on: [on], is: (of) => half(of(`${role}.in`), "up") },
  { name: `ffn_down${ending}.weight`, on: [on], is: (of) => of(`${role}.out`) },
];

export const gguf: Dialect<GraniteDims> = ggufDialect({
  rules: [
    ...outerRules<GraniteDims>(),
    ...layerRules<GraniteDims>(["mamba"], { "attn_norm.weight": "norm" }).map(asF32),
    ...mambaRules<GraniteDims>(["mamba"]),
    ...attentionRules<GraniteDims>(["attention"], () => false),
    ...layerRules<GraniteDims>(["mlp", "moe"], { "ffn_norm.weight": "norm" }).map(asF32),
    ...layerRules<GraniteDims>(["moe"], { "ffn_gate_inp.weight": "moe.gate" }).map(asF32),
    { name: "ffn_gate_exps.weight", on: ["moe"], is: halvesOfExperts("gate") },
    { name: "ffn_up_exps.weight", on: ["moe"], is: halvesOfExperts("up") },
    { name: "ffn_down_exps.weight", on: ["moe"], is: stackExperts("moe.out") },
    ...sharedRules("moe", "moe.shared", "_shexp"),
    ...sharedRules("mlp", "mlp", ""),
  ],
  settings: readSettings,
  limits,
  config: writeConfig,
});
