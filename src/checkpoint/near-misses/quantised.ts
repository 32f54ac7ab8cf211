/** Weights in the quantisation, or the layout, of software whose files are not read. */
import type { Tensor } from "../../core/checkpoint.ts";
import { IsologitError } from "../../core/errors.ts";
import { isJsonObject } from "../../core/json.ts";
import { sourceOfCopy } from "./origin.ts";
import type { Scene } from "./scene.ts";

const GIVE = "give the checkpoint that was quantised: these weights lost precision that cannot be restored";

/** Names of the tensors that a quantiser writes beside the weights. */
const METHODS: readonly { readonly method: string; readonly name: string; readonly tensors: RegExp }[] = [
  { method: "bitsandbytes", name: "bitsandbytes", tensors: /\.(quant_state\.bitsandbytes__\w+|SCB)$/ },
  { method: "gptq", name: "GPTQ", tensors: /\.g_idx$/ },
  { method: "awq", name: "AWQ", tensors: /\.qzeros$/ },
  { method: "hqq", name: "HQQ", tensors: /\.W_q$/ },
  { method: "compressed-tensors", name: "compressed-tensors, packed", tensors: /\.weight_packed$/ },
];

/** Weights of 4 or 8 bits with scales that only their own software reads. */
export async function foreignQuantisation(scene: Scene): Promise<IsologitError | null> {
  const { checkpoint } = scene;
  if (checkpoint === undefined || checkpoint.dialect !== "hf") return null;
  for (const { name, tensors } of METHODS) {
    const found = checkpoint.tensors.filter((tensor) => tensors.test(tensor.name));
    const [first] = found;
    if (first === undefined) continue;
    const declared = await declaredIn(scene);
    const message = `${found.length} weights are quantised by ${declared ?? name}, which this version does not read`;
    return new IsologitError("UNSUPPORTED", message, placeOf(first), {
      next: await sourceOfCopy(scene, GIVE),
    });
  }
  return null;
}

/** Scales under the names `scale_weight` and `scale_input`, which only software for diffusion models reads. */
export async function respeltScales({ checkpoint }: Scene): Promise<IsologitError | null> {
  if (checkpoint === undefined || checkpoint.dialect !== "hf") return null;
  const found = checkpoint.tensors.filter(({ name }) => /\.scale_(weight|input)$/.test(name));
  const [first] = found;
  if (first === undefined) return null;
  const message = `${found.length} scales are stored as scale_weight and scale_input; engines of language models read weight_scale and input_scale`;
  const script = `python3 -c "import os,sys,safetensors.torch as s; [(t:=s.load_file(f), os.remove(f), s.save_file({k.replace('.scale_weight', '.weight_scale').replace('.scale_input', '.input_scale'): v for k, v in t.items()}, f, {'format': 'pt'})) for f in sys.argv[1:]]" *.safetensors`;
  const next = `rename them in a copy of the folder: \`${script}\``;
  return new IsologitError("UNSUPPORTED", message, placeOf(first), { next });
}

/** The quantisation that the files of the checkpoint name. */
async function declaredIn(scene: Scene): Promise<string | undefined> {
  const { quantization_config: quantization } = scene.checkpoint!.config;
  if (isJsonObject(quantization as never)) {
    const {
      quant_method: method,
      quant_algo: algo,
      bnb_4bit_quant_type: type,
    } = quantization as Record<string, unknown>;
    const parts = [method, algo, type].filter((part) => typeof part === "string");
    if (parts.length > 0) return `${parts.join(" ")} (quantization_config)`;
  }
  const { quantization: beside } = (await scene.jsonOf("hf_quant_config.json")) ?? {};
  if (!isJsonObject(beside as never)) return undefined;
  const { quant_algo: algo } = beside as Record<string, unknown>;
  return typeof algo === "string" ? `${algo} (hf_quant_config.json)` : undefined;
}

/** MLX stores 4-bit weights in U32 with scales and biases, and filters of convolutions with the channels as the last dimension. */
export async function mlxWeights(scene: Scene): Promise<IsologitError | null> {
  const { checkpoint } = scene;
  if (checkpoint === undefined || checkpoint.dialect !== "hf") return null;
  const byName = new Map(checkpoint.tensors.map((tensor) => [tensor.name, tensor]));
  const packed = checkpoint.tensors.filter(({ name, dtype }) => {
    const base = name.replace(/\.weight$/, "");
    return dtype === "U32" && byName.has(`${base}.scales`) && byName.has(`${base}.biases`);
  });
  const [first] = packed;
  if (first !== undefined) {
    const { quantization } = checkpoint.config;
    const { bits, group_size: group } = isJsonObject(quantization as never)
      ? (quantization as Record<string, unknown>)
      : {};
    const how =
      typeof bits === "number" && typeof group === "number" ? `: ${bits} bits, groups of ${group}` : "";
    const message = `${packed.length} weights are quantised by MLX${how}; this version does not read them`;
    return new IsologitError("UNSUPPORTED", message, placeOf(first), {
      next: await sourceOfCopy(scene, GIVE),
    });
  }
  const filters = checkpoint.tensors.filter(({ name, shape }) => {
    return name.endsWith(".conv1d.weight") && shape.length === 3 && shape[2] === 1 && shape[1]! > 1;
  });
  const [filter] = filters;
  if (filter === undefined) return null;
  const file = filter.pieces[0]?.file;
  const format = file === undefined ? undefined : (await scene.headerOf(file))?.metadata?.format;
  const says = format === "mlx" ? " (its header says format mlx)" : "";
  const message = `the weights have the layout of MLX${says}: in ${filters.length} conv1d.weight the channels are the last dimension, [${filter.shape.join(", ")}]`;
  const script = `python3 -c "import os,sys,safetensors.torch as s; [(t:=s.load_file(f), os.remove(f), s.save_file({k: v.transpose(1, 2).contiguous() if k.endswith('conv1d.weight') else v for k, v in t.items()}, f, {'format': 'pt'})) for f in sys.argv[1:]]" *.safetensors`;
  return new IsologitError("UNSUPPORTED", message, placeOf(filter), {
    next: `give the checkpoint that MLX converted, or transpose the filters in a copy of the folder: \`${script}\``,
  });
}

function placeOf({ name, pieces: [piece] }: Tensor) {
  return { tensor: name, ...(piece !== undefined && { file: piece.file }) };
}
