/** Places a distributed checkpoint that Megatron-Bridge and Megatron-LM load: an imported model, as iteration 0. */
import { crc32 } from "node:zlib";
import { ORIGIN_FOLDER } from "../../src/core/carried-files.ts";
import type { DType } from "../../src/core/dtype.ts";
import { type WrittenValue, writePickle } from "../codec/pickle/write.ts";
import { archiveOf } from "../codec/torch-zip/write.ts";
import { type ConfigRecord, yamlText } from "../codec/yaml.ts";
import { folderPlan } from "../folder-placement.ts";
import type { Placement, WriteRequest } from "../format.ts";
import { iterationFolder, TRACKER } from "../megatron/iterations.ts";
import { isTokenizerFile } from "../tokenizer-files.ts";
import { pickledTensor } from "../torch-dist/pickles.ts";
import { placeDist } from "../torch-dist/write.ts";

const FOLDER = iterationFolder(0);
const CONFIG = "megatron.bridge.training";

export function placeBridge(wanted: WriteRequest): Placement {
  const plan = folderPlan();
  placeDist(plan, FOLDER, "", wanted);
  plan.bytes(`${FOLDER}common.pt`, commonState());
  plan.bytes(`${FOLDER}run_config.yaml`, Buffer.from(yamlText(runConfig(wanted))));
  const state = trainState();
  plan.bytes(`${FOLDER}train_state.pt`, state);
  plan.bytes("latest_train_state.pt", state);
  plan.bytes(TRACKER, Buffer.from("0"));
  for (const sidecar of wanted.sidecars) {
    const { path } = sidecar;
    plan.sidecar(path.startsWith(ORIGIN_FOLDER) ? path : `${FOLDER}tokenizer/${path}`, sidecar);
  }
  return plan.placement();
}

function runConfig({ config, sidecars }: WriteRequest): ConfigRecord {
  const tokenizer = {
    _target_: `${CONFIG}.tokenizers.config.TokenizerConfig`,
    tokenizer_model: "tokenizer",
    tokenizer_type: "HuggingFaceTokenizer",
  };
  return {
    _target_: `${CONFIG}.config.ConfigContainer`,
    checkpoint: {
      _target_: `${CONFIG}.config.CheckpointConfig`,
      ckpt_format: "torch_dist",
      save_optim: false,
      save_rng: false,
    },
    model: config,
    ...(sidecars.some(({ path }) => isTokenizerFile(path)) && { tokenizer }),
  };
}

/** `common.pt`: Megatron core up to 0.18 fails without it. */
function commonState(): Uint8Array {
  const pickle = writePickle({
    dict: [
      ["checkpoint_version", { float: 3 }],
      ["iteration", 0],
    ],
  });
  return archiveOf({ root: "common", pickle, storages: [] }).gaps[0]!.bytes; // without storages, gap 0 is the whole archive
}

/** Counters of Bridge for a run that has not begun, each a tensor without dimensions. */
const COUNTERS: readonly (readonly [name: string, dtype: DType, bytes: number])[] = [
  ["step", "I64", 8],
  ["consumed_train_samples", "I64", 8],
  ["skipped_train_samples", "I64", 8],
  ["consumed_valid_samples", "I64", 8],
  ["floating_point_operations_so_far", "F32", 4],
  ["do_train", "BOOL", 1],
  ["do_valid", "BOOL", 1],
  ["do_test", "BOOL", 1],
];

function trainState(): Uint8Array {
  const dict = COUNTERS.map(([name, dtype], i): [string, WrittenValue] => [
    name,
    pickledTensor(dtype, [], i),
  ]);
  const storages = COUNTERS.map(([, , bytes]) => bytes);
  const contents = { root: "train_state", pickle: writePickle({ dict }), storages };
  const { size, gaps } = archiveOf(
    contents,
    storages.map((bytes) => crc32(Buffer.alloc(bytes))),
  );
  const bytes = Buffer.alloc(size); // every counter is zero
  for (const gap of gaps) bytes.set(gap.bytes, gap.offset);
  return bytes;
}
