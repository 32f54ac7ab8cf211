import { bridge } from "./bridge.ts";
import type { Format } from "./define.ts";
import { hf } from "./hf.ts";
import { megatron } from "./megatron.ts";
import { nemo1 } from "./nemo1.ts";
import { nemo2 } from "./nemo2.ts";
import { packed } from "./packed.ts";

/** Every format, in order of detection. */
export const formats: readonly Format[] = [packed, hf, nemo2, nemo1, bridge, megatron];
