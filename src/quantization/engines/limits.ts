/** Limits that several engines have in common. */
import type { Group } from "../groups.ts";
import type { EngineLimit } from "./engine.ts";
import type { QuantizedFolder, StoredModule } from "./folder.ts";

export const quantisedModules = ({ modules }: QuantizedFolder): readonly StoredModule[] =>
  modules.filter(({ encoding }) => encoding !== null);

/**
 * A quantised head: for these engines it is no `Linear`.
 *
 * @param isNamed whether a target names the head, or only the class of linear modules
 */
export function headLimits(
  folder: QuantizedFolder,
  isNamed: boolean,
  { message, severity }: Pick<EngineLimit, "message" | "severity">,
): readonly EngineLimit[] {
  return quantisedModules(folder)
    .filter(({ isHead, groups }) => isHead && isNamed === !groups.some(isOfClass))
    .map(({ weight }) => ({ rule: "engine-head", severity, message, tensor: weight.name }));
}

const isOfClass = ({ targets }: Group): boolean => targets === null || !targets.some(isHeadName);
const isHeadName = (target: string): boolean => target.replace(/^re:/, "").includes("lm_head");

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
