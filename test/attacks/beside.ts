/** Files of other models that attacks lay beside a model's own. */
import { copyFileSync } from "node:fs";
import { join } from "node:path";
import { saveArrays, saveIndex, sizeOf } from "../support/foreign.ts";
import { arraysOf } from "../support/goldens.ts";
import { oneF32 } from "../support/verify/planted.ts";
import { copied, otherModel, put } from "./changes.ts";

/** A shard of another model with the index that names it. @param at for the other model */
export async function putOtherShards(folder: string, at: string): Promise<void> {
  const other = join(await copied("tiny", join(at, "other-model"), otherModel), "model.safetensors");
  const shard = "model-00001-of-00001.safetensors";
  copyFileSync(other, join(folder, shard));
  const arrays = await arraysOf(other);
  const weightMap = Object.fromEntries([...arrays.keys()].map((name) => [name, shard]));
  saveIndex(folder, weightMap, { total_size: sizeOf(arrays) });
}

/** A LoRA as PEFT writes it. */
export function putAdapter(folder: string): void {
  const target = { target_modules: ["up_proj"], base_model_name_or_path: "x" };
  put(folder, "adapter_config.json", JSON.stringify({ peft_type: "LORA", r: 1, lora_alpha: 64, ...target }));
  const name = "base_model.model.x.lora_A.weight";
  const arrays = new Map([[name, { dtype: "F32", shape: [1, 1], bytes: oneF32(1) } as const]]);
  saveArrays(join(folder, "adapter_model.safetensors"), arrays);
}
