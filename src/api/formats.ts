/** `formats`: what this version can read, write and recast. Told by the lists themselves, so that it cannot lie. */
import { formats as allFormats } from "../../formats/index.ts";
import type { DType, RecastKind } from "../core/dtype.ts";
import { families } from "../families/index.ts";

export interface FormatsReport {
  readonly formats: readonly {
    readonly id: string;
    readonly title: string;
    readonly reads: boolean;
    readonly writes: boolean;
    readonly endings: readonly string[];
  }[];
  readonly dialects: readonly { readonly id: string; readonly family: string }[];
  readonly families: readonly { readonly id: string; readonly recipes: readonly string[] }[];
  readonly recasts: readonly { readonly id: RecastKind; readonly writtenBy: readonly string[] }[];
  readonly backends: readonly string[];
}

const RECASTS: readonly (readonly [RecastKind, DType | null])[] = [
  ["keep", null],
  ["f32", "F32"],
  ["f16", "F16"],
  ["bf16", "BF16"],
  ["fp8-e4m3", "F8_E4M3"],
  ["fp8-e5m2", "F8_E5M2"],
];

export function formats(): FormatsReport {
  return {
    formats: allFormats.map(({ id, title, writes }) => ({
      id,
      title,
      reads: true,
      writes: writes !== undefined,
      endings: writes?.endings ?? [],
    })),
    dialects: families.flatMap((family) => family.dialects.map(({ id }) => ({ id, family: family.id }))),
    families: families.map(({ id, recipes }) => ({ id, recipes: recipes.map((recipe) => recipe.id) })),
    recasts: RECASTS.map(([id, dtype]) => ({
      id,
      writtenBy: allFormats
        .filter(({ writes }) => writes !== undefined && (dtype === null || writes.dtypes.includes(dtype)))
        .map((format) => format.id),
    })),
    backends: ["webgpu", "wasm"],
  };
}
