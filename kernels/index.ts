/** Every kernel, one file each. A new one is a file and a line here; the suite in test/kernels admits it. */
import { add } from "./add.ts";
import { attention } from "./attention.ts";
import { conv1d } from "./conv1d.ts";
import { copy } from "./copy.ts";
import type { Kernel } from "./define.ts";
import { gatedNorm } from "./gated-norm.ts";
import { linear } from "./linear.ts";
import { mix } from "./mix.ts";
import { relu2 } from "./relu2.ts";
import { rmsNorm } from "./rms-norm.ts";
import { routerChoose } from "./router-choose.ts";
import { routerScore } from "./router-score.ts";
import { routerWeigh } from "./router-weigh.ts";
import { ssd } from "./ssd.ts";
import { ssdStep } from "./ssd-step.ts";
import { widen } from "./widen.ts";

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
