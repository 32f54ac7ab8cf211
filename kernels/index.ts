/** Every kernel, one file each. A new one is a file and a line here; the suite in test/kernels admits it. */
import { add } from "./definitions/add.ts";
import { attention } from "./definitions/attention.ts";
import { conv1d } from "./definitions/conv1d.ts";
import { copy } from "./definitions/copy.ts";
import { gatedNorm } from "./definitions/gated-norm.ts";
import { linear } from "./definitions/linear.ts";
import { mix } from "./definitions/mix.ts";
import { relu2 } from "./definitions/relu2.ts";
import { rmsNorm } from "./definitions/rms-norm.ts";
import { routerChoose } from "./definitions/router-choose.ts";
import { routerScore } from "./definitions/router-score.ts";
import { routerWeigh } from "./definitions/router-weigh.ts";
import { ssd } from "./definitions/ssd.ts";
import { ssdStep } from "./definitions/ssd-step.ts";
import { widen } from "./definitions/widen.ts";
import type { Kernel } from "./kernel.ts";

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
