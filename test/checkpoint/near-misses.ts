/** What people bring in place of a checkpoint, built small from goldens: each into a folder of its own. */
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { encodeHeader } from "../../formats/codec/safetensors.ts";
import {
  changeConfig,
  changedGolden,
  copyGolden,
  INDEX,
  saveArrays,
  shardedGolden,
} from "../support/foreign.ts";
import { arraysOf, ggufGolden, golden, type StoredArray } from "../support/goldens.ts";

export interface NearMiss {
  readonly name: string;
  /** @returns the address to give */
  readonly build: (folder: string) => Promise<string> | string;
  readonly code: string;
  /** what is said of it */
  readonly says: RegExp;
  /** a part of the next step */
  readonly next: RegExp;
}

const SINGLE = "model.safetensors";
const near = (name: string) => new URL(`../../fixtures/near-misses/${name}`, import.meta.url).pathname;

/** A file at `path` below `folder`, its folders made. @returns `folder` */
export function put(folder: string, path: string, content: string | Uint8Array): string {
  mkdirSync(dirname(join(folder, path)), { recursive: true });
  writeFileSync(join(folder, path), content);
  return folder;
}

const pointer = (size: number) =>
  `version https://git-lfs.github.com/spec/v1\noid sha256:${"5e".repeat(32)}\nsize ${size}\n`;

/** The small golden without its weights. */
function weightless(folder: string): string {
  copyGolden("tiny", folder);
  rmSync(join(folder, SINGLE));
  return folder;
}

const renamed = (folder: string, rename: (name: string) => string) =>
  changedGolden(
    "tiny",
    folder,
    (arrays) => new Map([...arrays].map(([name, array]) => [rename(name), array])),
  );

const reshaped = (folder: string, change: (name: string, array: StoredArray) => StoredArray) =>
  changedGolden(
    "tiny",
    folder,
    (arrays) => new Map([...arrays].map(([name, array]) => [name, change(name, array)])),
  );

function adapter(folder: string): string {
  const array: StoredArray = { dtype: "F32", shape: [4, 64], bytes: new Uint8Array(4 * 4 * 64) };
  const name = "base_model.model.backbone.layers.3.mixer.q_proj.lora_A.weight";
  saveArrays(join(folder, "adapter_model.safetensors"), new Map([[name, array]]));
  const config = { base_model_name_or_path: "nvidia/Nemotron-H-8B-Base-8K", peft_type: "LORA", r: 4 };
  return put(folder, "adapter_config.json", JSON.stringify(config));
}

/** Weights of two ranks, each with its part of every tensor, as torch's HuggingFaceStorageWriter names them. */
async function shardsOfRanks(folder: string): Promise<string> {
  const arrays = await arraysOf(join(golden("tiny"), SINGLE));
  weightless(folder);
  for (const rank of [0, 1]) {
    const part = new Map<string, StoredArray>();
    const info: Record<string, object> = {};
    for (const [name, { dtype, shape, bytes }] of arrays) {
      const [rows = 1, ...rest] = shape;
      const half = bytes.byteLength / 2;
      if (rows % 2 !== 0) continue;
      part.set(name, {
        dtype,
        shape: [rows / 2, ...rest],
        bytes: bytes.slice(rank * half, (rank + 1) * half),
      });
      info[name] = { saved_offsets: [(rank * rows) / 2, ...rest.map(() => 0)] };
    }
    const all = [...part].map(([name, array]) => ({ name, ...array }));
    const header = encodeHeader(all, { format: "pt", DCP_SHARDING_INFO: JSON.stringify(info) });
    const file = `shard-0000${rank + 1}-model-00001-of-00001.safetensors`;
    put(folder, file, Buffer.concat([header, ...all.map(({ bytes }) => bytes)]));
  }
  return folder;
}

function quantised(
  folder: string,
  of: RegExp,
  made: (name: string, array: StoredArray) => [string, StoredArray][],
) {
  return changedGolden(
    "tiny",
    folder,
    (arrays) =>
      new Map([...arrays].flatMap(([name, array]) => (of.test(name) ? made(name, array) : [[name, array]]))),
  );
}

const zeros = (dtype: StoredArray["dtype"], shape: readonly number[], width: number): StoredArray => ({
  dtype,
  shape,
  bytes: new Uint8Array(shape.reduce((a, b) => a * b, width)),
});

/** Bytes of a golden without those whose paths match. */
function copyWithout(name: string, folder: string, drop: RegExp): string {
  cpSync(golden(name), folder, { recursive: true, filter: (path) => !drop.test(path) });
  return folder;
}

/** The Hub's cache folder of a repository. */
function cacheFolder(folder: string): { root: string; snapshot: string } {
  const root = join(folder, "models--nvidia--Tiny");
  const commit = "0123456789abcdef0123456789abcdef01234567";
  const snapshot = join(root, "snapshots", commit);
  put(root, "refs/main", commit);
  mkdirSync(snapshot, { recursive: true });
  for (const [i, file] of readdirSync(golden("tiny")).entries()) {
    const blob = String(i).repeat(64).slice(0, 64);
    put(root, `blobs/${blob}`, readFileSync(join(golden("tiny"), file)));
    symlinkSync(`../../blobs/${blob}`, join(snapshot, file));
  }
  return { root, snapshot };
}

const ITER = "iter_0000010";

export const NEAR_MISSES: readonly NearMiss[] = [
  {
    name: "Git LFS pointers",
    build: (folder) => {
      copyGolden("tiny", folder);
      for (const file of [SINGLE, "tokenizer.json"]) put(folder, file, pointer(497_536));
      return folder;
    },
    code: "NOT_FETCHED",
    says: /Git LFS pointer, a text of \d+ bytes.*1 of 1 weight files, 1 other file/,
    next: /git -C \S+ lfs pull/,
  },
  {
    name: "one shard of three is a pointer",
    build: async (folder) => {
      await shardedGolden("tiny", folder);
      return put(folder, "model-00002-of-00003.safetensors", pointer(160_000));
    },
    code: "NOT_FETCHED",
    says: /Git LFS pointer.*1 of 3 weight files/,
    next: /lfs pull/,
  },
  {
    name: "config.json is a pointer",
    build: (folder) => put(copyGolden("tiny", folder), "config.json", pointer(1500)),
    code: "NOT_FETCHED",
    says: /Git LFS pointer/,
    next: /lfs pull/,
  },
  {
    name: "a .nemo that is a pointer",
    build: (folder) => join(put(folder, "m.nemo", pointer(500_000)), "m.nemo"),
    code: "NOT_FETCHED",
    says: /Git LFS pointer/,
    next: /git -C \S+ lfs pull/,
  },
  {
    name: "a web page",
    build: (folder) =>
      put(
        copyGolden("tiny", folder),
        SINGLE,
        "<!doctype html>\n<html><title>401 Client Error</title></html>\n",
      ),
    code: "NOT_FETCHED",
    says: /this is a web page: .*401 Client Error/,
    next: /isologit download/,
  },
  {
    name: "an answer in JSON",
    build: (folder) =>
      put(copyGolden("tiny", folder), SINGLE, '{"error":"Invalid credentials in Authorization header"}'),
    code: "NOT_FETCHED",
    says: /JSON text: .*Invalid credentials/,
    next: /isologit download/,
  },
  {
    name: "a text",
    build: (folder) => put(copyGolden("tiny", folder), SINGLE, "Entry not found\n"),
    code: "NOT_FETCHED",
    says: /this is a text: "Entry not found"/,
    next: /fetch the whole file again/,
  },
  {
    name: "a file that was never filled",
    build: (folder) => put(copyGolden("tiny", folder), SINGLE, new Uint8Array(100_000)),
    code: "NOT_FETCHED",
    says: /512 zero bytes/,
    next: /fetch the whole file again/,
  },
  {
    name: "an empty file",
    build: (folder) => put(copyGolden("tiny", folder), SINGLE, ""),
    code: "NOT_FETCHED",
    says: /empty file/,
    next: /fetch the whole file again/,
  },
  {
    name: "folders with the parts of a GGUF, and a GGUF in a folder",
    build: (folder) => {
      cpSync(ggufGolden("tiny-split"), join(folder, "BF16"), { recursive: true });
      return put(folder, "Q8_0/tiny.gguf", readFileSync(ggufGolden("tiny-q8_0.gguf")));
    },
    code: "FORMAT_UNKNOWN",
    says: /contains 2: BF16 \(gguf\), Q8_0\/tiny\.gguf \(gguf\)/,
    next: /give one of them, the last is .*Q8_0\/tiny\.gguf/,
  },
  {
    name: "pytorch_model.bin alone",
    build: (folder) => put(weightless(folder), "pytorch_model.bin", "PK\x03\x04"),
    code: "FORMAT_UNKNOWN",
    says: /weights are in pytorch_model\.bin, pickled by torch\.save/,
    next: /python3 -c .*save_file.* pytorch_model\.bin/,
  },
  {
    name: "pytorch_model.bin beside the index of safetensors that are gone",
    build: async (folder) => {
      const { weightMap } = await shardedGolden("tiny", folder);
      for (const file of new Set(Object.values(weightMap))) rmSync(join(folder, file));
      return put(folder, "pytorch_model.bin", "PK\x03\x04");
    },
    code: "FORMAT_UNKNOWN",
    says: /pytorch_model\.bin.*model\.safetensors\.index\.json names 3 files that do not exist/,
    next: /^remove model\.safetensors\.index\.json/,
  },
  {
    name: "a torch file under the name of safetensors",
    build: (folder) => put(copyGolden("tiny", folder), SINGLE, "PK\x03\x04".padEnd(64, "\0")),
    code: "FORMAT_UNKNOWN",
    says: /zip archive, as torch\.save writes, with the name of a safetensors file/,
    next: /pytorch_model\.bin/,
  },
  {
    name: "weights of TensorFlow",
    build: (folder) => put(weightless(folder), "tf_model.h5", "\x89HDF"),
    code: "FORMAT_UNKNOWN",
    says: /TensorFlow/,
    next: /release in safetensors/,
  },
  {
    name: "a LoRA adapter alone",
    build: (folder) => adapter(weightless(folder)),
    code: "FORMAT_UNKNOWN",
    says: /adapter \(LORA\) of nvidia\/Nemotron-H-8B-Base-8K/,
    next: /merge_and_unload/,
  },
  {
    name: "the base of an unmerged PEFT model",
    build: (folder) =>
      renamed(
        folder,
        (name) => `base_model.model.${name.replace("q_proj.weight", "q_proj.base_layer.weight")}`,
      ),
    code: "TENSOR_UNKNOWN",
    says: /\d+ names contain `base_layer`/,
    next: /merge_and_unload/,
  },
  {
    name: "an adapter of NeMo",
    build: (folder) => {
      put(folder, "model_config.yaml", "vocab_size: 8\nnum_layers: 1\n");
      return put(folder, "model_weights.ckpt", readFileSync(near("adapter.ckpt")));
    },
    code: "FORMAT_UNKNOWN",
    says: /all 2 tensors belong to an adapter/,
    next: /merge the adapter into its base model/,
  },
  {
    name: "names of torch.compile",
    build: (folder) => renamed(folder, (name) => `_orig_mod.${name}`),
    code: "TENSOR_UNKNOWN",
    says: /all 58 names begin with `_orig_mod\.`, which torch\.compile/,
    next: /python3 -c .*_orig_mod/,
  },
  {
    name: "names of DistributedDataParallel around torch.compile",
    build: (folder) => renamed(folder, (name) => `module._orig_mod.${name}`),
    code: "TENSOR_UNKNOWN",
    says: /all 58 names begin with `module\._orig_mod\.`/,
    next: /python3 -c/,
  },
  {
    name: "names of torch.compile layer by layer",
    build: (folder) => renamed(folder, (name) => name.replace(/layers\.(\d+)\./, "layers.$1._orig_mod.")),
    code: "TENSOR_UNKNOWN",
    says: /55 of 58 names contain `_orig_mod\.`/,
    next: /python3 -c/,
  },
  {
    name: "a token table under a foreign name",
    build: (folder) =>
      renamed(folder, (name) => name.replace("backbone.embeddings", "backbone.embed_tokens")),
    code: "TENSOR_MISSING",
    says: /has backbone\.embed_tokens\.weight and not backbone\.embeddings\.weight/,
    next: /rename the tensor to backbone\.embeddings\.weight/,
  },
  {
    name: "a reward model",
    build: (folder) =>
      changedGolden("tiny", folder, (arrays) => {
        const others = [...arrays].filter(([name]) => name !== "lm_head.weight");
        return new Map([...others, ["score.weight", zeros("BF16", [1, 64], 2)] as const]);
      }),
    code: "TENSOR_MISSING",
    says: /has score\.weight and not lm_head\.weight/,
    next: /causal language model/,
  },
  {
    name: "empty matrices of ZeRO-3",
    build: (folder) =>
      reshaped(folder, (_, array) =>
        array.shape.length > 1 ? { ...array, shape: [0], bytes: new Uint8Array() } : array,
      ),
    code: "TENSOR_MISSING",
    says: /28 of 58 tensors are empty, \[0\]: ZeRO stage 3/,
    next: /zero_to_fp32\.py/,
  },
  {
    name: "MLX in BF16",
    build: (folder) =>
      reshaped(folder, (name, array) => {
        const [a, b, c] = array.shape;
        return name.endsWith("conv1d.weight") ? { ...array, shape: [a!, c!, b!] } : array;
      }),
    code: "UNSUPPORTED",
    says: /layout of MLX.*4 conv1d\.weight the channels are the last dimension, \[192, 4, 1\]/,
    next: /transpose\(1, 2\)/,
  },
  {
    name: "MLX in 4 bits",
    build: async (folder) => {
      await quantised(folder, /(up|down)_proj\.weight$/, (name, { shape: [rows = 1, columns = 1] }) => [
        [name, zeros("U32", [rows, columns / 8], 4)],
        [name.replace("weight", "scales"), zeros("BF16", [rows, columns / 32], 2)],
        [name.replace("weight", "biases"), zeros("BF16", [rows, columns / 32], 2)],
      ]);
      return changeConfig(folder, { quantization: { group_size: 32, bits: 4 } });
    },
    code: "UNSUPPORTED",
    says: /6 weights are quantised by MLX: 4 bits, groups of 32/,
    next: /checkpoint that was quantised/,
  },
  {
    name: "bitsandbytes",
    build: async (folder) => {
      await quantised(folder, /(up|down)_proj\.weight$/, (name, { shape: [rows = 1, columns = 1] }) => [
        [name, zeros("U8", [(rows * columns) / 2, 1], 1)],
        [`${name}.absmax`, zeros("F32", [(rows * columns) / 64], 4)],
        [`${name}.quant_map`, zeros("F32", [16], 4)],
        [`${name}.quant_state.bitsandbytes__nf4`, zeros("U8", [40], 1)],
      ]);
      return changeConfig(folder, {
        quantization_config: { quant_method: "bitsandbytes", bnb_4bit_quant_type: "nf4" },
      });
    },
    code: "UNSUPPORTED",
    says: /6 weights are quantised by bitsandbytes nf4/,
    next: /checkpoint that was quantised/,
  },
  {
    name: "GPTQ",
    build: async (folder) => {
      await quantised(folder, /(up|down)_proj\.weight$/, (name, { shape: [rows = 1, columns = 1] }) => [
        [name.replace("weight", "qweight"), zeros("I32", [columns / 8, rows], 4)],
        [name.replace("weight", "g_idx"), zeros("I32", [columns], 4)],
      ]);
      return changeConfig(folder, { quantization_config: { quant_method: "gptq", bits: 4 } });
    },
    code: "UNSUPPORTED",
    says: /6 weights are quantised by gptq/,
    next: /checkpoint that was quantised/,
  },
  {
    name: "scales as scale_weight",
    build: (folder) =>
      quantised(folder, /(up|down)_proj\.weight$/, (name, { shape }) => [
        [name, zeros("F8_E4M3", shape, 1)],
        [name.replace(/weight$/, "scale_weight"), zeros("F32", [1], 4)],
        [name.replace(/weight$/, "scale_input"), zeros("F32", [1], 4)],
      ]),
    code: "UNSUPPORTED",
    says: /12 scales are stored as scale_weight and scale_input/,
    next: /'\.scale_weight', '\.weight_scale'/,
  },
  {
    name: "shards of two ranks",
    build: shardsOfRanks,
    code: "UNSUPPORTED",
    says: /files of 2 ranks have a part of each tensor, written by torch's HuggingFaceStorageWriter/,
    next: /docs\/other-checkpoints\.md/,
  },
  {
    name: "the shard of one rank of two",
    build: async (folder) => {
      await shardsOfRanks(folder);
      rmSync(join(folder, "shard-00002-model-00001-of-00001.safetensors"));
      return folder;
    },
    code: "TENSOR_MISSING",
    says: /one rank's part of each tensor.*other ranks are missing/,
    next: /shard-\* files of all ranks/,
  },
  {
    name: "a distributed checkpoint under Hugging Face's names",
    build: (folder) => {
      cpSync(near("dcp-hf-names"), folder, { recursive: true });
      return put(folder, "config.json", readFileSync(join(golden("tiny"), "config.json")));
    },
    code: "UNSUPPORTED",
    says: /this is a distributed checkpoint of torch with Hugging Face's names/,
    next: /docs\/other-checkpoints\.md/,
  },
  {
    name: "the same below a folder with config.json",
    build: (folder) => {
      cpSync(near("dcp-hf-names-below"), join(weightless(folder), "pytorch_model_fsdp_0"), {
        recursive: true,
      });
      return folder;
    },
    code: "UNSUPPORTED",
    says: /pytorch_model_fsdp_0 is a distributed checkpoint of torch with Hugging Face's names/,
    next: /docs\/other-checkpoints\.md/,
  },
  {
    name: "a distributed checkpoint whose entries are safetensors",
    build: (folder) => {
      cpSync(near("dcp-safetensors"), folder, { recursive: true });
      return folder;
    },
    code: "UNSUPPORTED",
    says: /entries of this file are in safetensors/,
    next: /docs\/other-checkpoints\.md/,
  },
  {
    name: "a distributed checkpoint that is compressed",
    build: (folder) => {
      cpSync(near("dcp-zstd"), folder, { recursive: true });
      return folder;
    },
    code: "UNSUPPORTED",
    says: /compressed or otherwise transformed \(stream\.zstd\/1\)/,
    next: /without extensions/,
  },
  {
    name: "NeMo 2 without .metadata",
    build: (folder) => copyWithout("nemo2-tiny", folder, /\.metadata$|\/hf$/),
    code: "TENSOR_MISSING",
    says: /weights\/\.metadata is missing, the index of the 2 \.distcp files/,
    next: /cp FROM\/weights\/\.metadata \S+\/weights\//,
  },
  {
    name: "an iteration without .metadata",
    build: (folder) => copyWithout("megatron-bridge-moe", folder, /\.metadata$|\/hf$/),
    code: "TENSOR_MISSING",
    says: /iter_0000100\/\.metadata is missing/,
    next: /cp FROM\/iter_0000100\/\.metadata/,
  },
  ...[2, 4].map(
    (protocol): NearMiss => ({
      name: `torch's format of before 1.6, in pickle protocol ${protocol}`,
      build: (folder) =>
        put(folder, "mp_rank_00/model_optim_rng.pt", readFileSync(near(`legacy-protocol-${protocol}.pt`))),
      code: "UNSUPPORTED",
      says: /torch's format before version 1\.6/,
      next: /weights_only=False/,
    }),
  ),
  {
    name: "a .nemo packed with xz",
    build: (folder) => join(put(folder, "m.nemo", Buffer.from("fd377a585a000004", "hex")), "m.nemo"),
    code: "FORMAT_UNKNOWN",
    says: /this is an xz file/,
    next: /`xz -dc \S+m\.nemo > \S+`/,
  },
  {
    name: "a .nemo packed with Zstandard",
    build: (folder) => join(put(folder, "m.nemo", Buffer.from("28b52ffd04000000", "hex")), "m.nemo"),
    code: "FORMAT_UNKNOWN",
    says: /this is a Zstandard file/,
    next: /`zstd -dc/,
  },
  {
    name: "the second rank is missing",
    build: (folder) => copyWithout("megatron-tp2", folder, /mp_rank_01/),
    code: "TENSOR_MISSING",
    says: /mp_rank_01 is missing; 1 of 2 ranks/,
    next: /copy mp_rank_01/,
  },
  {
    name: "the first rank is missing",
    build: (folder) => copyWithout("megatron-tp2", folder, /mp_rank_00/),
    code: "TENSOR_MISSING",
    says: /mp_rank_00 is missing; 1 of 2 ranks/,
    next: /copy mp_rank_00/,
  },
  {
    name: "a run's folder",
    build: (folder) => {
      copyWithout("nemo2-tiny", join(folder, "checkpoints/step=100-last"), /\/hf$/);
      return folder;
    },
    code: "FORMAT_UNKNOWN",
    says: /contains one: checkpoints\/step=100-last \(nemo2\)/,
    next: /give \S+\/checkpoints\/step=100-last$/,
  },
  {
    name: "a folder of several checkpoints",
    build: (folder) => {
      for (const step of [9, 10, 100]) copyGolden("tiny", join(folder, `checkpoint-${step}`));
      return folder;
    },
    code: "FORMAT_UNKNOWN",
    says: /contains 3: checkpoint-9 \(hf\), checkpoint-10 \(hf\), checkpoint-100 \(hf\)/,
    next: /the last is \S+\/checkpoint-100$/,
  },
  {
    name: "weights/ without context/",
    build: (folder) => copyWithout("nemo2-tiny", folder, /context|\/hf$/),
    code: "FORMAT_UNKNOWN",
    says: /weights\/ of a NeMo 2 checkpoint is here, but its context\/ is missing/,
    next: /`like`/,
  },
  {
    name: "weights/ of a whole checkpoint",
    build: () => join(golden("nemo2-tiny"), "weights"),
    code: "FORMAT_UNKNOWN",
    says: /part of a checkpoint; the checkpoint \(nemo2\) is the folder \S+nemo2-tiny$/,
    next: /give \S+nemo2-tiny$/,
  },
  {
    name: "one rank's folder",
    build: () => join(golden("megatron-tp2"), ITER, "mp_rank_00"),
    code: "FORMAT_UNKNOWN",
    says: /files of one rank; the checkpoint \(megatron\) is the folder \S+megatron-tp2$/,
    next: /give \S+megatron-tp2$/,
  },
  {
    name: "one rank's file",
    build: () => join(golden("megatron-tp2"), ITER, "mp_rank_00/model_optim_rng.pt"),
    code: "FORMAT_UNKNOWN",
    says: /file of one rank; the checkpoint \(megatron\)/,
    next: /give \S+megatron-tp2$/,
  },
  {
    name: "an index alone",
    build: () => join(golden("sharded"), INDEX),
    code: "FORMAT_UNKNOWN",
    says: /file of a checkpoint; the checkpoint \(hf\) is the folder \S+sharded$/,
    next: /give \S+sharded$/,
  },
  {
    name: "one shard of several",
    build: () => join(golden("sharded"), "model-00001-of-00003.safetensors"),
    code: "FORMAT_UNKNOWN",
    says: /the checkpoint \(hf\) is the folder/,
    next: /give \S+sharded$/,
  },
  {
    name: "weights without a config.json",
    build: (folder) => {
      copyGolden("tiny", folder);
      rmSync(join(folder, "config.json"));
      return folder;
    },
    code: "FAMILY_UNKNOWN",
    says: /config\.json is missing beside the weights/,
    next: /put the model's config\.json into the folder/,
  },
  {
    name: "a repository's folder in the Hub's cache",
    build: (folder) => cacheFolder(folder).root,
    code: "FORMAT_UNKNOWN",
    says: /folder of the Hub's cache; the revision main is snapshots\/0123456789abcdef/,
    next: /give \S+\/snapshots\/0123456789abcdef\w+$/,
  },
  {
    name: "a snapshot whose blob is gone",
    build: (folder) => {
      const { root, snapshot } = cacheFolder(folder);
      const i = readdirSync(golden("tiny")).indexOf(SINGLE);
      rmSync(join(root, "blobs", String(i).repeat(64).slice(0, 64)));
      return snapshot;
    },
    code: "NOT_FETCHED",
    says: /a link to \.\.\/\.\.\/blobs\/\w+, which does not exist/,
    next: /isologit download nvidia\/Tiny --revision 0123456789abcdef/,
  },
  {
    name: "a Puzzle model",
    build: (folder) => changeConfig(copyGolden("moe", folder), { model_type: "nemotron_h_puzzle" }),
    code: "UNSUPPORTED",
    says: /nemotron_h_puzzle/,
    next: /inspect one of its \.safetensors files/,
  },
];
