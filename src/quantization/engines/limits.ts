/** Limits that several engines have in common. */
import { LINEAR } from "../groups.ts";
import type { EngineLimit } from "./engine.ts";
import type { QuantizedFolder, StoredModule } from "./folder.ts";

export const quantisedModules = ({ modules }: QuantizedFolder): readonly StoredModule[] =>
  modules.filter(({ encoding }) => encoding !== null);

/** A quantised head that only the class of linear modules names. The head of these engines is no `Linear`. */
export function headLimits(
  folder: QuantizedFolder,
  { message }: Pick<EngineLimit, "message">,
): readonly EngineLimit[] {
  return quantisedModules(folder)
    .filter(
      ({ isHead, groups }) => isHead && groups.every(({ targets }) => targets?.includes(LINEAR) ?? true),
    )
    .map(({ weight }) => ({ rule: "engine-head", severity: "warning", message, tensor: weight.name }));
}

/** FP8 of the method `fp8` with one scale a tensor, whose scales have another name than the engine reads. */
export function scaleNameLimits(
  { scheme, ...folder }: QuantizedFolder,
  isRead: (name: string) => boolean,
  { message }: Pick<EngineLimit, "message">,
): readonly EngineLimit[] {
  if (scheme.method !== "fp8") return [];
  const unread = folder.modules.find(
    ({ encoding, extent, scale }) =>
      encoding === "FP8" && extent === "tensor" && scale !== undefined && !isRead(scale.name),
  );
  const isBlock = scheme.groups.some(({ strategy }) => strategy === "block");
  if (unread === undefined || isBlock) return [];
  return [{ rule: "engine-scale-name", severity: "note", message, tensor: unread.scale!.name }];
}
