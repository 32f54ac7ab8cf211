/** `formats`: lists what this version can read, write and recast. The report is made from the lists that the program uses. */
import type { Format } from "../../formats/format.ts";
import { isFileKind, RECAST_TARGETS, RECASTS, type RecastTarget } from "../core/dtype.ts";
import { type PluginOptions, type PluginsReport, pluginsReport } from "../plugins/plugin.ts";
import { registryOf } from "../plugins/registry.ts";

export interface FormatsReport extends PluginsReport {
  readonly formats: readonly {
    readonly id: string;
    readonly title: string;
    readonly reads: boolean;
    readonly writes: boolean;
    readonly endings: readonly string[];
  }[];
  readonly dialects: readonly { readonly id: string; readonly family: string }[];
  readonly families: readonly { readonly id: string; readonly recipes: readonly string[] }[];
  readonly recasts: readonly { readonly id: RecastTarget; readonly writtenBy: readonly string[] }[];
  readonly backends: readonly string[];
}

/**
 * Lists the formats, dialects, families, recasts and backends of this version and of plug-ins.
 *
 * @param options the plug-ins
 * @returns the lists; `writtenBy` names the formats that can store a recast's dtype
 * @example
 * const writable = formats().formats.filter(({ writes }) => writes);
 */
export function formats(options: PluginOptions = {}): FormatsReport {
  const { formats: known, families } = registryOf(options);
  return {
    formats: known.map(({ id, title, writes }) => ({
      id,
      title,
      reads: true,
      writes: writes !== undefined,
      endings: writes?.endings ?? [],
    })),
    dialects: families.flatMap((family) => family.dialects.map(({ id }) => ({ id, family: family.id }))),
    families: families.map(({ id, recipes }) => ({ id, recipes: recipes.map((recipe) => recipe.id) })),
    recasts: RECAST_TARGETS.map((id) => ({
      id,
      writtenBy: formatsThatWrite(id, known),
    })),
    backends: ["webgpu", "wasm"],
    ...pluginsReport(options),
  };
}

/** Every format stores some of the types that `keep` leaves alone. */
function formatsThatWrite(target: RecastTarget, known: readonly Format[]): readonly string[] {
  const canWrite = ({ writes }: Format): boolean => {
    if (writes === undefined || target === "keep") return writes !== undefined;
    if (isFileKind(target)) return writes.tensorTypes !== undefined;
    return writes.dtypes.includes(RECASTS[target].dtype);
  };
  return known.filter(canWrite).map(({ id }) => id);
}
