import { bridge } from "./bridge/format.ts";
import type { Format } from "./format.ts";
import { gguf } from "./gguf/format.ts";
import { hf } from "./hf/format.ts";
import { megatron } from "./megatron/format.ts";
import { nemo1 } from "./nemo1/format.ts";
import { nemo2 } from "./nemo2/format.ts";
import { packed } from "./packed/format.ts";

/** Every format, in order of detection. */
export const formats: readonly Format[] = [packed, hf, nemo2, nemo1, bridge, megatron, gguf];
