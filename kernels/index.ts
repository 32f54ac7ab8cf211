/**
 * Every kernel: its definition joined with its shaders. A new kernel needs a definition, a shader, a function in
 * `wasm/`, and its lines here; the suite in test/kernels then tests it.
 */
import { attentionDefinition } from "./definitions/attention.ts";
import { conv1dDefinition } from "./definitions/conv1d.ts";
import {
  addDefinition,
  copyDefinition,
  relu2Definition,
  widenDefinition,
} from "./definitions/elementwise.ts";
import { linearDefinition } from "./definitions/linear.ts";
import {
  mixDefinition,
  routerChooseDefinition,
  routerScoreDefinition,
  routerWeighDefinition,
} from "./definitions/moe.ts";
import { gatedNormDefinition, rmsNormDefinition } from "./definitions/norm.ts";
import { ssdDefinition } from "./definitions/ssd.ts";
import { ssdStepDefinition } from "./definitions/ssd-step.ts";
import type { Kernel } from "./kernel.ts";
import { attentionWgsl } from "./wgsl/attention.ts";
import { conv1dWgsl } from "./wgsl/conv1d.ts";
import { addWgsl, copyWgsl, relu2Wgsl, widenWgsl } from "./wgsl/elementwise.ts";
import { linearWgsl } from "./wgsl/linear.ts";
import { mixWgsl, routerChooseWgsl, routerScoreWgsl, routerWeighWgsl } from "./wgsl/moe.ts";
import { gatedNormWgsl, rmsNormWgsl } from "./wgsl/norm.ts";
import { ssdWgsl } from "./wgsl/ssd.ts";
import { ssdStepWgsl } from "./wgsl/ssd-step.ts";

export const add = { ...addDefinition, wgsl: addWgsl };
export const attention = { ...attentionDefinition, wgsl: attentionWgsl };
export const conv1d = { ...conv1dDefinition, wgsl: conv1dWgsl };
export const copy = { ...copyDefinition, wgsl: copyWgsl };
export const gatedNorm = { ...gatedNormDefinition, wgsl: gatedNormWgsl };
export const linear = { ...linearDefinition, wgsl: linearWgsl };
export const mix = { ...mixDefinition, wgsl: mixWgsl };
export const relu2 = { ...relu2Definition, wgsl: relu2Wgsl };
export const rmsNorm = { ...rmsNormDefinition, wgsl: rmsNormWgsl };
export const routerChoose = { ...routerChooseDefinition, wgsl: routerChooseWgsl };
export const routerScore = { ...routerScoreDefinition, wgsl: routerScoreWgsl };
export const routerWeigh = { ...routerWeighDefinition, wgsl: routerWeighWgsl };
export const ssd = { ...ssdDefinition, wgsl: ssdWgsl };
export const ssdStep = { ...ssdStepDefinition, wgsl: ssdStepWgsl };
export const widen = { ...widenDefinition, wgsl: widenWgsl };

export const kernels: readonly Kernel[] = [
  add,
  attention,
  conv1d,
  copy,
  gatedNorm,
  linear,
  mix,
  relu2,
  rmsNorm,
  routerChoose,
  routerScore,
  routerWeigh,
  ssd,
  ssdStep,
  widen,
];
