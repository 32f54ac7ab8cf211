/**
 * Checkpoints in Megatron's dialects, cut by hand from a copy of a Hugging Face one: a few lines of their own, which
 * know neither the rules nor the uses that they try.
 */
import type { Checkpoint, Piece, Rank, Tensor } from "../../../src/core/checkpoint.ts";
import { countOf, type Shape, widthOf } from "../../../src/core/dtype.ts";
import { families } from "../../../src/families/index.ts";
import { nemotronH } from "../../../src/families/nemotron-h/index.ts";
import { modelOf } from "../../../src/families/recognise.ts";
import type { StoredArray } from "../goldens.ts";
import { memoryStore } from "../memory-store.ts";
import { type Copy, opened } from "./planted.ts";

/** How a hand-made checkpoint is cut. */
export interface Cut {
  readonly dialect: "megatron" | "megatron-ranks";
  readonly tp: number;
  /** the first layer of each pipeline stage; the first of all is 0 */
  readonly stages: readonly number[];
  readonly ep: number;
  /** rows of the token table, padding included */
  readonly rows: number;
}

export function rowsOf({ dtype, shape, bytes }: StoredArray, from: number, count: number): StoredArray {
  const size = bytes.byteLength / shape[0]!;
  return {
    dtype,
    shape: [count, ...shape.slice(1)],
    bytes: bytes.slice(from * size, (from + count) * size),
  };
}

/** Columns of a matrix. */
export function columnsOf({ dtype, shape, bytes }: StoredArray, from: number, count: number): StoredArray {
  const [rows, columns] = shape as [number, number];
  const width = widthOf(dtype);
  const out = new Uint8Array(rows * count * width);
  for (let r = 0; r < rows; r++) {
    const at = (r * columns + from) * width;
    out.set(bytes.subarray(at, at + count * width), r * count * width);
  }
  return { dtype, shape: [rows, count], bytes: out };
}

export function joined(parts: readonly StoredArray[]): StoredArray {
  const { dtype, shape } = parts[0]!;
  const rows = parts.reduce((sum, part) => sum + part.shape[0]!, 0);
  return { dtype, shape: [rows, ...shape.slice(1)], bytes: Buffer.concat(parts.map(({ bytes }) => bytes)) };
}

/** @returns its tensors by name, or by `name@tp.pp.ep` */
export async function inMegatron(
  copy: Copy,
  cut: Cut,
): Promise<Copy & { readonly config: Checkpoint["config"] }> {
  const model = modelOf(await opened(copy), families);
  const { layers, settings, passthrough } = model;
  const d = nemotronH.dims(settings);
  const dialect = model.family.dialects.find(({ id }) => id === cut.dialect)!;
  const ranked = cut.dialect === "megatron-ranks";
  const tensors = new Map<string, StoredArray>();
  const get = (name: string) => copy.tensors.get(name)!;

  for (let pp = 0; pp < cut.stages.length; pp++) {
    for (let ep = 0; ep < cut.ep; ep++) {
      for (let tp = 0; tp < cut.tp; tp++) {
        const put = (name: string, array: StoredArray) =>
          tensors.set(ranked ? `${name}@${tp}.${pp}.${ep}` : name, array);
        const share = (array: StoredArray) => {
          const count = array.shape[0]! / cut.tp;
          return rowsOf(array, tp * count, count);
        };
        const shareOfColumns = (array: StoredArray) => {
          const count = array.shape[1]! / cut.tp;
          return columnsOf(array, tp * count, count);
        };
        const padded = (array: StoredArray) =>
          share(joined([array, ...(cut.rows > d.vocab ? [rowsOf(array, 7, cut.rows - d.vocab)] : [])]));
        const [from, to] = [cut.stages[pp]!, cut.stages[pp + 1] ?? Infinity];
        const isLast = pp === cut.stages.length - 1;

        // a prediction needs the words again
        const embeds = pp === 0 || (isLast && layers.some(({ stack }) => stack === "mtp"));
        if (embeds) put("embedding.word_embeddings.weight", padded(get("backbone.embeddings.weight")));
        for (const { stack, index, kind, inner, of } of layers) {
          if (stack === "main" ? index < from || index >= to : !isLast) continue;
          const theirs = stack === "main" ? `backbone.layers.${index}.` : `mtp.layers.${index}.`;
          const step = `mtp.layers.${Math.floor(index / of)}.`;
          const ours =
            stack === "main" ? `decoder.layers.${index - from}.` : `${step}mtp_model_layer.layers.${inner}.`;
          const mixer = (name: string) => get(`${theirs}mixer.${name}`);
          const norm = get(`${theirs}norm.weight`);
          if (stack === "mtp" && inner === 0) {
            put(`${step}eh_proj.weight`, share(get(`${theirs}eh_proj.weight`)));
            for (const name of ["enorm.weight", "hnorm.weight"]) put(step + name, get(theirs + name));
          }
          if (stack === "mtp" && inner === of - 1)
            put(`${step}final_layernorm.weight`, get(`${theirs}final_layernorm.weight`));
          if (kind === "mamba") {
            put(`${ours}mixer.in_proj.layer_norm_weight`, norm);
            const sizes = { z: d.inner, x: d.inner, B: d.groupState, C: d.groupState, dt: d.mambaHeads };
            let at = 0;
            const parts = Object.entries(sizes).map(([name, size]) => {
              at += size;
              return { name, array: share(rowsOf(mixer("in_proj.weight"), at - size, size)) };
            });
            at = 0;
            const channels = ["x", "B", "C"].map((name) => {
              const size = sizes[name as keyof typeof sizes];
              at += size;
              const [taps, bias] = ["conv1d.weight", "conv1d.bias"].map((one) =>
                share(rowsOf(mixer(one), at - size, size)),
              );
              return { name, taps: taps!, bias: bias! };
            });
            if (ranked) {
              put(`${ours}mixer.in_proj.weight`, joined(parts.map(({ array }) => array)));
              put(`${ours}mixer.conv1d_weight`, joined(channels.map(({ taps }) => taps)));
              put(`${ours}mixer.conv1d_bias`, joined(channels.map(({ bias }) => bias)));
            } else {
              for (const { name, array } of parts) put(`${ours}mixer.in_proj.weight.${name}`, array);
              for (const { name, taps, bias } of channels) {
                put(`${ours}mixer.conv1d.weight.${name}`, taps);
                put(`${ours}mixer.conv1d.bias.${name}`, bias);
              }
            }
            for (const name of ["A_log", "D", "dt_bias", "norm.weight"])
              put(`${ours}mixer.${name}`, share(mixer(name)));
            put(`${ours}mixer.out_proj.weight`, shareOfColumns(mixer("out_proj.weight")));
          } else if (kind === "attention") {
            put(`${ours}self_attention.linear_qkv.layer_norm_weight`, norm);
            const [hd, perGroup] = [d.headDim, d.heads / d.kvHeads];
            const groups = Array.from({ length: d.kvHeads }, (_, j) => [
              rowsOf(mixer("q_proj.weight"), j * perGroup * hd, perGroup * hd),
              rowsOf(mixer("k_proj.weight"), j * hd, hd),
              rowsOf(mixer("v_proj.weight"), j * hd, hd),
            ]);
            put(`${ours}self_attention.linear_qkv.weight`, share(joined(groups.flat())));
            put(`${ours}self_attention.linear_proj.weight`, shareOfColumns(mixer("o_proj.weight")));
          } else if (kind === "mlp") {
            put(`${ours}mlp.linear_fc1.layer_norm_weight`, norm);
            put(`${ours}mlp.linear_fc1.weight`, share(mixer("up_proj.weight")));
            put(`${ours}mlp.linear_fc2.weight`, shareOfColumns(mixer("down_proj.weight")));
          } else {
            put(`${ours}pre_mlp_layernorm.weight`, norm);
            put(`${ours}mlp.router.weight`, mixer("gate.weight"));
            put(`${ours}mlp.router.expert_bias`, mixer("gate.e_score_correction_bias"));
            if (d.latent > 0) {
              for (const name of ["fc1_latent_proj.weight", "fc2_latent_proj.weight"])
                put(`${ours}mlp.${name}`, mixer(name));
            }
            put(`${ours}mlp.shared_experts.linear_fc1.weight`, share(mixer("shared_experts.up_proj.weight")));
            put(
              `${ours}mlp.shared_experts.linear_fc2.weight`,
              shareOfColumns(mixer("shared_experts.down_proj.weight")),
            );
            const expert = (e: number, name: string) => mixer(`experts.${e}.${name}_proj.weight`);
            if (ranked) {
              const count = d.experts / cut.ep;
              for (let i = 0; i < count; i++) {
                const [up, down] = [expert(ep * count + i, "up"), expert(ep * count + i, "down")];
                put(`${ours}mlp.experts.local_experts.${i}.linear_fc1.weight`, share(up));
                put(`${ours}mlp.experts.local_experts.${i}.linear_fc2.weight`, shareOfColumns(down));
              }
            } else {
              for (const [i, name] of ["up", "down"].entries()) {
                const all = Array.from({ length: d.experts }, (_, e) => expert(e, name));
                const { shape } = all[0]!;
                put(`${ours}mlp.experts.experts.linear_fc${i + 1}.weight`, {
                  ...joined(all),
                  shape: [all.length, ...shape],
                });
              }
            }
          }
        }
        if (!isLast) continue;
        put("decoder.final_norm.weight", get("backbone.norm_f.weight"));
        put("output_layer.weight", padded(get("lm_head.weight")));
      }
    }
  }
  const shards = { ...dialect.cut(model, { tp: cut.tp, pp: cut.stages.length }), rows: cut.rows, ep: cut.ep };
  const software = ranked ? "megatron" : "bridge";
  const { config } = dialect.config({
    settings,
    passthrough,
    software,
    parallelism: shards,
    dtype: "bfloat16",
  });
  return { tensors, files: copy.files, config };
}

/** As it is read: each array a file; a matrix of the distributed dialect in two pieces, cut by columns or by rows. */
export function openedMegatron(
  { tensors }: Copy,
  config: Checkpoint["config"],
  { dialect }: Pick<Cut, "dialect">,
  vocab: number,
): Checkpoint {
  const files = new Map<string, Uint8Array>();
  const file = (path: string, { shape, bytes }: StoredArray, origin: Shape): Piece => {
    files.set(path, bytes);
    return { file: path, offset: 0, start: origin, shape };
  };
  const list = [...tensors].map(([key, array]): Tensor => {
    const [name, ranks] = key.split("@") as [string, string?];
    const [tp, pp, ep] = (ranks ?? "0.0.0").split(".").map(Number) as [number, number, number];
    const rank: Rank = { tp, pp, ep };
    const { dtype, shape } = array;
    const zeros = shape.map(() => 0);
    const half = Math.floor(shape[1] === undefined ? 0 : shape[1] / 2);
    const pieces =
      dialect === "megatron" && shape.length === 2 && half > 0
        ? /(out_proj|linear_proj|linear_fc2)\.weight$/.test(name)
          ? [
              file(`${key}.0`, columnsOf(array, 0, half), [0, 0]),
              file(`${key}.1`, columnsOf(array, half, shape[1]! - half), [0, half]),
            ]
          : [
              file(`${key}.0`, rowsOf(array, 0, 3), [0, 0]),
              file(`${key}.1`, rowsOf(array, 3, shape[0]! - 3), [3, 0]),
            ]
        : [file(key, array, zeros)];
    if (countOf(shape) * widthOf(dtype) !== array.bytes.byteLength) throw new Error(`${key} is no ${shape}`);
    return { name, dtype, shape, pieces, ...(ranks !== undefined && { rank }) };
  });
  return {
    ...{ format: "hand", dialect, config, tensors: list, store: memoryStore("memory", files) },
    ...{ objects: [], sidecars: [], weightFiles: [], recasts: [], hints: { vocab } },
  };
}
