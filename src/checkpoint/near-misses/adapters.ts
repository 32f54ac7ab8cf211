/** Adapters without the model that they belong to, and models that were saved without merging their adapter. */
import type { Tensor } from "../../core/checkpoint.ts";
import { IsologitError } from "../../core/errors.ts";
import { shellWord } from "./address.ts";
import type { Scene } from "./scene.ts";

const CONFIG = "adapter_config.json";
const ADAPTER = /^adapter_model\.(safetensors|bin)$/;
/** Parts of names that PEFT and NeMo give to adapters. */
const LORA = /(^|\.)(lora_[A-Za-z_]+|adapter_layer|lora_kqv_adapter|adapter)\./;

/** A PEFT folder: `adapter_config.json` and its weights, no others. */
export async function adapterAlone(scene: Scene): Promise<IsologitError | null> {
  const top = scene.files.filter(({ path }) => !path.includes("/"));
  const adapter = top.find(({ path }) => ADAPTER.test(path));
  const others = top.some(
    ({ path }) =>
      /\.(safetensors|bin|pt|pth)$/.test(path) &&
      !ADAPTER.test(path) &&
      !/^(training_args|optimizer|scheduler|rng_state)/.test(path),
  );
  if (adapter === undefined || others) return null;
  const config = (await scene.jsonOf(CONFIG)) ?? {};
  const kind = typeof config.peft_type === "string" ? config.peft_type : "PEFT";
  const base =
    typeof config.base_model_name_or_path === "string" ? config.base_model_name_or_path : undefined;
  const of = base === undefined ? "" : ` of ${base}`;
  const unnamed = base === undefined ? `; ${CONFIG} does not name its base model` : "";
  const message = `this is an adapter (${kind})${of}, not a whole model${unnamed}`;
  const from = JSON.stringify(base ?? "BASE").replaceAll('"', "'");
  const script = `python3 -c "from peft import PeftModel as P; from transformers import AutoModelForCausalLM as M; P.from_pretrained(M.from_pretrained(${from}, dtype='auto'), '${scene.address.replaceAll("'", "\\'")}').merge_and_unload().save_pretrained('merged')"`;
  const next = `merge the adapter into its base model, then give the merged folder: ${script}`;
  return new IsologitError("FORMAT_UNKNOWN", message, { file: adapter.path }, { next });
}

/** Finds tensors of adapters, by their names, in an opened checkpoint. */
export function adapterNames({ checkpoint, address }: Scene): IsologitError | null {
  const tensors = checkpoint?.tensors ?? [];
  const adapters = tensors.filter(({ name }) => LORA.test(name));
  const [first] = adapters;
  const inside = tensors.filter(({ name }) => name.includes(".base_layer."));
  if (first !== undefined && adapters.length === tensors.length) {
    const message = `all ${tensors.length} tensors belong to an adapter (LoRA): this is not a whole model`;
    return new IsologitError("FORMAT_UNKNOWN", message, placeOf(first), {
      next: "merge the adapter into its base model with the software that trained it, then give the merged checkpoint",
    });
  }
  if (inside.length === 0 && first === undefined) return null;
  const at = placeOf(inside[0] ?? first!);
  if (first !== undefined) {
    const message = `this PEFT model was not merged: ${adapters.length} tensors belong to adapters and ${tensors.length - adapters.length} to the model`;
    return new IsologitError("TENSOR_UNKNOWN", message, at, {
      next: "save the model again with `model.merge_and_unload().save_pretrained(FOLDER)`, then give that folder",
    });
  }
  const message = `this is the base of a PEFT model without its adapter: ${inside.length} names contain \`base_layer\`, after the prefix \`base_model.model.\``;
  const script = `python3 -c "import os,sys,safetensors.torch as s; [(t:=s.load_file(f), os.remove(f), s.save_file({k.removeprefix('base_model.model.').replace('.base_layer.', '.'): v for k, v in t.items()}, f, {'format': 'pt'})) for f in sys.argv[1:]]" *.safetensors`;
  return new IsologitError("TENSOR_UNKNOWN", message, at, {
    next: `save the model after model.merge_and_unload(), or remove the prefixes in a copy of ${shellWord(address)} without its index: \`${script}\``,
  });
}

function placeOf({ name, pieces: [piece] }: Tensor) {
  return { tensor: name, ...(piece !== undefined && { file: piece.file }) };
}
