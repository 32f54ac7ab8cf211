import type { Format } from "./define.ts";
import { hf } from "./hf.ts";
import { packed } from "./packed.ts";

/** Every format, in order of detection. */
export const formats: readonly Format[] = [packed, hf];
