/** Goldens of families in shapes that llama.cpp computes as Transformers does, as `fixtures/generate/gguf_families.py` makes them. */
import { stringifyJson } from "../../src/core/json.ts";
import { familyGolden, type StoredArray } from "./goldens.ts";
import { type Copy, copyOf, Editor } from "./verify/planted.ts";

type Runs = readonly (readonly [lo: number, hi: number])[];

/** Some rows of a tensor, one run after the other. */
function rowsOf({ dtype, shape, bytes }: StoredArray, runs: Runs): StoredArray {
  const size = bytes.byteLength / shape[0]!;
  const rows = runs.reduce((sum, [lo, hi]) => sum + hi - lo, 0);
  return {
    dtype,
    shape: [rows, ...shape.slice(1)],
    bytes: Uint8Array.from(Buffer.concat(runs.map(([lo, hi]) => bytes.subarray(lo * size, hi * size)))),
  };
}

/** The golden, changed by `change`; its config has the keys that `change` returns. */
async function changed(
  name: string,
  change: (editor: Editor, config: Readonly<Record<string, number>>) => object,
): Promise<Copy> {
  const editor = new Editor(await copyOf(familyGolden(name)));
  const config = JSON.parse(Buffer.from(editor.copy.files.get("config.json")!).toString());
  const keys = change(editor, config);
  editor.copy.files.set("config.json", Buffer.from(stringifyJson({ ...config, ...keys })));
  return editor.copy;
}

/** `bamba` or `granitemoehybrid` with only the first group of B and of C, so that its one norm is over one group. */
export const withOneGroup = (name: "bamba" | "granitemoehybrid", keys: object = {}): Promise<Copy> =>
  changed(name, ({ copy: { tensors } }, config) => {
    const inner = config.mamba_n_heads! * config.mamba_d_head!;
    const [groups, state] = [config.mamba_n_groups!, config.mamba_d_state!];
    const first = (at: number): Runs => [
      [at, at + state],
      [at + groups * state, at + groups * state + state],
    ];
    for (const [key, array] of tensors) {
      if (key.includes(".mamba.conv1d.")) tensors.set(key, rowsOf(array, [[0, inner], ...first(inner)]));
      if (key.endsWith(".mamba.in_proj.weight")) {
        const dt = [2 * inner + 2 * groups * state, array.shape[0]!] as const;
        tensors.set(key, rowsOf(array, [[0, 2 * inner], ...first(2 * inner), dt]));
      }
    }
    return { mamba_n_groups: 1, ...keys };
  });

/** `granitemoehybrid` with one group and without experts. */
export async function graniteWithoutExperts(): Promise<Copy> {
  const copy = await withOneGroup("granitemoehybrid", { num_local_experts: 0 });
  for (const key of copy.tensors.keys()) if (key.includes("block_sparse_moe")) copy.tensors.delete(key);
  return copy;
}

/** `nemotron` with the first 16 elements of each head, so that queries have the hidden width. */
export const nemotronWithHeadsOf16 = (): Promise<Copy> =>
  changed("nemotron", ({ copy: { tensors } }, { head_dim: width }) => {
    for (const [key, array] of tensors) {
      const { shape, bytes, dtype } = array;
      const starts = (length: number) => Array.from({ length: length / width! }, (_, head) => head * width!);
      if (/[qkv]_proj\.weight$/.test(key))
        tensors.set(
          key,
          rowsOf(
            array,
            starts(shape[0]!).map((at) => [at, at + 16] as const),
          ),
        );
      if (!key.endsWith("o_proj.weight")) continue;
      const columns = { dtype, shape: [bytes.byteLength / 2, 1], bytes };
      const runs = starts(columns.shape[0]!).map((at) => [at, at + 16] as const);
      tensors.set(key, { ...rowsOf(columns, runs), shape: [shape[0]!, (shape[1]! / width!) * 16] });
    }
    return { head_dim: 16 };
  });

/** `granitemoehybrid` with the attention of its one layer in each block, and no Mamba; heads are turned. */
export async function graniteOfAttention(): Promise<Copy> {
  const keys = { layer_types: ["attention", "attention", "attention", "attention"] };
  const copy = await withOneGroup("granitemoehybrid", { ...keys, position_embedding_type: "rope" });
  for (const [key, array] of [...copy.tensors]) {
    if (key.includes(".mamba.")) copy.tensors.delete(key);
    if (key.includes("layers.2.self_attn."))
      for (const block of [0, 1, 3]) copy.tensors.set(key.replace("layers.2.", `layers.${block}.`), array);
  }
  return copy;
}
