/** Flags that ask for a shape by its size. */
import { SHAPE_RANKS } from "../../pruning/options.ts";
import { flagGroup, oneOf } from "../flag.ts";
import { decimalReader, integerReader, readText } from "../values.ts";

export const SIZE_FLAGS = flagGroup("Size and search:", {
  params: {
    spec: "--params <n>",
    about: "search the best shape of at most so many parameters, such as 47e9",
    read: decimalReader(1, Number.MAX_SAFE_INTEGER, "a number of parameters"),
  },
  budget: {
    spec: "--budget <list>",
    about:
      "search the best shape that needs at most this memory, such as memory=31.7GiB,weights=fp4,kv=fp8,state=bf16,context=1M,batch=1; with a shape: refuse one that needs more",
    read: readText,
  },
  grid: {
    spec: "--grid <list>",
    about: "shapes of the search, such as attention=1..10,mamba=41..54,mlp=41..54,ffn=24576..32768/1024",
    default: "attention from 1 layer, the rest from 75 %",
    read: readText,
  },
  candidates: {
    spec: "--candidates <n>",
    about: "shapes that are measured, the most promising first",
    default: "32",
    read: integerReader(1, 1_000_000),
  },
  rank: {
    spec: "--rank <measure>",
    about: "by what the best measured shape is chosen",
    default: "kl",
    ...oneOf(SHAPE_RANKS),
  },
  sizes: {
    spec: "--sizes",
    about: "only show parameters and memory, or how many shapes fit; reads headers and needs no DST",
    option: null,
  },
  distill: {
    spec: "--distill <dir>",
    about: "write a script and settings for a distillation with Model-Optimizer or Megatron-Bridge",
    read: readText,
  },
});
