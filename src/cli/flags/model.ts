/** Flags about checkpoints: the source, the conversion, and existing files at the destination. */
import { FNUZ_HANDLINGS, RECAST_TARGETS } from "../../core/dtype.ts";
import { QUANT_DIALECTS, WEIGHT_SCALES } from "../../plugins/quantization-dialect.ts";
import { flagGroup, oneOf } from "../flag.ts";
import { choiceReader, decimalReader, integerReader, readSize, readText } from "../values.ts";

const ALIGNMENTS = ["256", "4096"];

/** Names of torch, of compressed-tensors and of llama.cpp. */
const DTYPE_ALIASES = {
  float32: "f32",
  fp32: "f32",
  float: "f32",
  float16: "f16",
  fp16: "f16",
  half: "f16",
  bfloat16: "bf16",
  fp8: "fp8-e4m3",
  fp8_e4m3: "fp8-e4m3",
  float8_e4m3fn: "fp8-e4m3",
  fp8_e5m2: "fp8-e5m2",
  float8_e5m2: "fp8-e5m2",
} as const;

export const SOURCE_FLAGS = flagGroup("Source options:", {
  vocabSize: {
    spec: "--vocab-size <n>",
    about: "true size of the vocabulary, for a checkpoint that stores only padded rows",
    read: integerReader(1, 2 ** 31),
  },
  like: {
    spec: "--like <dir>",
    about: "checkpoint of the same architecture, for the config, tokenizer and side files that SRC lacks",
    read: readText,
  },
  iteration: {
    spec: "--iteration <n>",
    about: "iteration of a training run to read",
    default: "the latest",
    read: integerReader(0, Number.MAX_SAFE_INTEGER),
  },
  plugin: {
    spec: "--plugin <module>",
    option: "plugins",
    about:
      "module with further formats, families, kernels and quantization dialects, by path or by the name of its package; its code runs in this process; may be given several times",
    read: readText,
    repeatable: true,
  },
});

const CONVERSION = "Conversion options:";

export const TARGET_FLAGS = flagGroup(CONVERSION, {
  to: {
    spec: "--to <format>",
    about: "format to write, see `isologit formats`; not needed if the ending of DST names the format",
    read: readText,
  },
  plan: {
    spec: "--plan <file>",
    option: "planFile",
    about: "run exactly the plan in this file, which `isologit plan --json` wrote",
    read: readText,
  },
});

export const RECAST_FLAGS = flagGroup(CONVERSION, {
  dtype: {
    spec: "--dtype <dtype>",
    about: "dtype of the written weights; q8_0 and those after it are kinds of GGUF files",
    default: "keep",
    ...oneOf(RECAST_TARGETS, DTYPE_ALIASES),
  },
  recipe: {
    spec: "--recipe <name|file>",
    about:
      "which weights are cast: a name that `isologit formats` lists, a YAML file, or auto: measure every layer and keep the most sensitive, or measure the type of each tensor of a GGUF",
    default: "the first recipe of the family for FP8, else all weights",
    read: readText,
  },
  bits: {
    spec: "--bits <n>",
    about: "with --recipe auto, largest mean number of bits of a weight",
    default: "as few as --kl allows",
    read: decimalReader(1, 32, "bits"),
  },
  keepEnds: {
    spec: "--keep-ends <n>",
    about: "number of layers at each end that are not cast",
    default: "the number in the recipe",
    read: integerReader(0, 1e6),
  },
  quantDialect: {
    spec: "--quant-dialect <name>",
    about: "how a folder describes its FP8 weights to engines, by a dialect of this version or of a plug-in",
    default: "compressed-tensors for weights that are cast",
    choices: QUANT_DIALECTS,
    read: readText,
  },
  quantScales: {
    spec: "--quant-scales <extent>",
    about:
      "which elements of a weight that is cast to FP8 share a scale; block: 128 x 128, mxfp8: 32 in a row",
    default: "tensor",
    ...oneOf(WEIGHT_SCALES),
  },
  fnuz: {
    spec: "--fnuz <how>",
    about:
      "what becomes of FP8 weights of AMD's MI300 (FNUZ) that are not cast; relabel: the usual type, the same codes and half the scale",
    default: "refuse them",
    ...oneOf(FNUZ_HANDLINGS),
  },
  fuseScales: {
    spec: "--fuse-scales",
    about: "give q, k and v of a layer one FP8 scale, and gate and up of an MLP, because engines join them",
  },
  allowOverflow: {
    spec: "--allow-overflow",
    about: "write values that F16 cannot hold as infinities",
  },
  keepExtra: {
    spec: "--keep-extra",
    about: "also copy training state and other files that are not part of the model",
  },
});

export const MEASURE_FLAGS = flagGroup(CONVERSION, {
  measure: {
    spec: "--measure",
    about: "also read and cast the weights, and report the error of each recast; writes nothing",
  },
});

export const PLACEMENT_FLAGS = flagGroup(CONVERSION, {
  maxShardSize: {
    spec: "--max-shard-size <size>",
    option: "maxShardBytes",
    about: "largest size of a weight file; a GGUF then becomes a folder of several files",
    default: "5GB, and one GGUF",
    read: readSize,
  },
  align: {
    spec: "--align <bytes>",
    option: "alignment",
    about: "alignment of the tensors in a packed file, in bytes",
    default: "256",
    choices: ALIGNMENTS,
    read: (given, name) => Number(choiceReader(ALIGNMENTS)(given, name)),
  },
  tp: {
    spec: "--tp <n>",
    about: "number of tensor-parallel ranks that the weights are written for",
    default: "1",
    read: integerReader(1, 4096),
  },
  pp: {
    spec: "--pp <n>",
    about: "number of pipeline stages of a megatron checkpoint",
    default: "1",
    read: integerReader(1, 4096),
  },
});

export const RESULT_FLAGS = flagGroup("Result options:", {
  out: {
    spec: "-o, --out <file>",
    about: "safetensors file to write",
    default: "logits.safetensors",
    read: readText,
  },
  hidden: {
    spec: "--hidden",
    about: "also write the hidden state after each layer, and the chosen experts",
  },
  tensors: {
    spec: "--tensors",
    about: "list every tensor",
  },
});

export const DESTINATION_FLAGS = flagGroup("Existing files:", {
  resume: {
    spec: "--resume",
    about: "continue an interrupted run",
  },
  overwrite: {
    spec: "--overwrite",
    about: "replace existing files, after the new files are verified",
  },
  directIo: {
    spec: "--direct-io <when>",
    about: "whether large tensors are written past the page cache",
    default: "auto, where system and file system can do that",
    ...oneOf(["auto", "off"]),
  },
});
