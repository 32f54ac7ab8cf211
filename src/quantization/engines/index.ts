/** The engines, in the order in which they are named. */
import type { Engine } from "./engine.ts";
import { sglang } from "./sglang.ts";
import { tensorRtLlm } from "./tensorrt-llm.ts";
import { transformers } from "./transformers.ts";
import { vllm } from "./vllm.ts";

export const ENGINES: readonly Engine[] = [vllm, sglang, tensorRtLlm, transformers];
