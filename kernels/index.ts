/**
 * Every kernel: its definition joined with its shaders. A new kernel needs a definition, a shader, a function in
 * `wasm/`, and its lines here; the suite in test/kernels then tests it.
 */
import { attentionDefinition } from "./definitions/attention.ts";
import { conv1dDefinition } from "./definitions/conv1d.ts";
import {
  addDefinition,
  addRowDefinition,
  copyDefinition,
  relu2Definition,
  scaleDefinition,
  swigluDefinition,
  widenDefinition,
} from "./definitions/elementwise.ts";
import { linearDefinition } from "./definitions/linear.ts";
import {
  mixDefinition,
  routerChooseDefinition,
  routerScoreDefinition,
  routerSoftmaxDefinition,
  routerWeighDefinition,
} from "./definitions/moe.ts";
import { gatedNormDefinition, layerNormDefinition, rmsNormDefinition } from "./definitions/norm.ts";
import { ropeDefinition } from "./definitions/rope.ts";
import { ssdDefinition } from "./definitions/ssd.ts";
import { ssdStepDefinition } from "./definitions/ssd-step.ts";
import type { Kernel, KernelDefinition, WgslForm } from "./kernel.ts";
import { attentionWgsl } from "./wgsl/attention.ts";
import { conv1dWgsl } from "./wgsl/conv1d.ts";
import {
  addRowWgsl,
  addWgsl,
  copyWgsl,
  relu2Wgsl,
  scaleWgsl,
  swigluWgsl,
  widenWgsl,
} from "./wgsl/elementwise.ts";
import { linearWgsl } from "./wgsl/linear.ts";
import {
  mixWgsl,
  routerChooseWgsl,
  routerScoreWgsl,
  routerSoftmaxWgsl,
  routerWeighWgsl,
} from "./wgsl/moe.ts";
import { gatedNormWgsl, layerNormWgsl, rmsNormWgsl } from "./wgsl/norm.ts";
import { ropeWgsl } from "./wgsl/rope.ts";
import { ssdWgsl } from "./wgsl/ssd.ts";
import { ssdStepWgsl } from "./wgsl/ssd-step.ts";

const withShaders = <P>(definition: KernelDefinition<P>, wgsl: WgslForm<P>): Kernel<P> => ({
  ...definition,
  wgsl,
});

export const add = withShaders(addDefinition, addWgsl);
export const addRow = withShaders(addRowDefinition, addRowWgsl);
export const attention = withShaders(attentionDefinition, attentionWgsl);
export const conv1d = withShaders(conv1dDefinition, conv1dWgsl);
export const copy = withShaders(copyDefinition, copyWgsl);
export const gatedNorm = withShaders(gatedNormDefinition, gatedNormWgsl);
export const layerNorm = withShaders(layerNormDefinition, layerNormWgsl);
export const linear = withShaders(linearDefinition, linearWgsl);
export const mix = withShaders(mixDefinition, mixWgsl);
export const relu2 = withShaders(relu2Definition, relu2Wgsl);
export const rmsNorm = withShaders(rmsNormDefinition, rmsNormWgsl);
export const rope = withShaders(ropeDefinition, ropeWgsl);
export const routerChoose = withShaders(routerChooseDefinition, routerChooseWgsl);
export const routerScore = withShaders(routerScoreDefinition, routerScoreWgsl);
export const routerSoftmax = withShaders(routerSoftmaxDefinition, routerSoftmaxWgsl);
export const routerWeigh = withShaders(routerWeighDefinition, routerWeighWgsl);
export const scale = withShaders(scaleDefinition, scaleWgsl);
export const ssd = withShaders(ssdDefinition, ssdWgsl);
export const ssdStep = withShaders(ssdStepDefinition, ssdStepWgsl);
export const swiglu = withShaders(swigluDefinition, swigluWgsl);
export const widen = withShaders(widenDefinition, widenWgsl);

export const kernels: readonly Kernel[] = [
  add,
  addRow,
  attention,
  conv1d,
  copy,
  gatedNorm,
  layerNorm,
  linear,
  mix,
  relu2,
  rmsNorm,
  rope,
  routerChoose,
  routerScore,
  routerSoftmax,
  routerWeigh,
  scale,
  ssd,
  ssdStep,
  swiglu,
  widen,
];
