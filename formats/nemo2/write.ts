/** Places a NeMo 2 folder: `context/` as its loader and its converters expect it, `weights/`, and the tokenizer. */

import { ORIGIN_FOLDER } from "../../src/core/carried-files.ts";
import { IsologitError } from "../../src/core/errors.ts";
import { writePickle } from "../codec/pickle/write.ts";
import { archiveOf } from "../codec/torch-zip/write.ts";
import { type ConfigRecord, yamlText } from "../codec/yaml.ts";
import { folderPlan } from "../folder-placement.ts";
import type { Placement, WriteRequest } from "../format.ts";
import { isTokenizerFile } from "../tokenizer-files.ts";
import { placeDist } from "../torch-dist/write.ts";
import { type FiddleArgument, type FiddleConfig, fiddleText } from "./fiddle.ts";
import { PREFIX } from "./files.ts";

/** the folder into which NeMo's importer copies a tokenizer */
const TOKENIZER = "nemo_tokenizer";
const TOKENIZER_CLASS = {
  module: "nemo.collections.common.tokenizers.huggingface.auto_tokenizer",
  name: "AutoTokenizer",
};
/** The only model class of NeMo 2 whose config has a layer pattern; it is in the module of the config. */
const MODEL_CLASS = "MambaModel";

export function placeNemo2(wanted: WriteRequest): Placement {
  const plan = folderPlan();
  placeDist(plan, "weights/", PREFIX, wanted);
  plan.bytes("weights/common.pt", commonState());
  const hasTokenizer = wanted.sidecars.some(({ path }) => isTokenizerFile(path));
  plan.bytes("context/model.yaml", Buffer.from(yamlText(modelOf(wanted, hasTokenizer))));
  plan.bytes("context/io.json", Buffer.from(fiddleText(contextOf(wanted, hasTokenizer))));
  for (const sidecar of wanted.sidecars) {
    const { path } = sidecar;
    plan.sidecar(path.startsWith(ORIGIN_FOLDER) ? path : `context/${TOKENIZER}/${path}`, sidecar);
  }
  return plan.placement();
}

/** State that Lightning saves beside the weights, for a run that has not begun. */
function commonState(): Uint8Array {
  const pickle = writePickle({
    dict: [
      ["epoch", 0],
      ["global_step", 0],
      ["pytorch-lightning_version", "2.5.2"],
      ["state_dict", { dict: [] }],
    ],
  });
  return archiveOf({ root: "common", pickle, storages: [] }).gaps[0]!.bytes; // without storages, gap 0 is the whole archive
}

function modelOf({ config }: WriteRequest, hasTokenizer: boolean): ConfigRecord {
  const tokenizer = {
    _target_: `${TOKENIZER_CLASS.module}.${TOKENIZER_CLASS.name}`,
    pretrained_model_name: TOKENIZER,
  };
  return {
    _target_: `${classOf(config).module}.${MODEL_CLASS}`,
    config,
    model_transform: null,
    optim: null,
    tokenizer: hasTokenizer ? tokenizer : null,
  };
}

/** NeMo's loader builds the model from this: the class of the model, and the arguments for its config. */
function contextOf({ config }: WriteRequest, hasTokenizer: boolean): FiddleConfig {
  const { module, name } = classOf(config);
  const args = Object.entries(config).flatMap(([key, value]): [string, FiddleArgument][] =>
    key !== "_target_" && isLeaf(value) ? [[key, value]] : [],
  );
  const tokenizer: FiddleConfig = { ...TOKENIZER_CLASS, args: [["pretrained_model_name", TOKENIZER]] };
  return {
    module: "nemo.lightning.io.pl",
    name: "TrainerContext",
    args: [
      [
        "model",
        {
          module,
          name: MODEL_CLASS,
          args: [
            ["config", { module, name, args }],
            ...(hasTokenizer ? [["tokenizer", tokenizer] as const] : []),
          ],
        },
      ],
      ["trainer", { module: "nemo.lightning.pytorch.trainer", name: "Trainer", args: [] }],
      ["extra", {}],
    ],
  };
}

/** Only plain values are passed; functions and dtypes are defaults of the class. */
function isLeaf(value: unknown): value is string | number | boolean | null {
  return value === null || ["string", "number", "boolean"].includes(typeof value);
}

function classOf(config: ConfigRecord): { module: string; name: string } {
  const [, module, name] = /^(.+)\.(\w+)$/.exec(String(config._target_)) ?? [];
  if (module !== undefined && name !== undefined) return { module, name };
  throw new IsologitError("INTERNAL", "a NeMo 2 config to be written has no class");
}
