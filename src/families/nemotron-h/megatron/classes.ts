/** The sizes of NeMo 2's model classes. NeMo 2 stores only arguments, so the config of a standard import has only its class. */
import type { Settings } from "../../structure.ts";

const EIGHT = "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-";
const FORTY_SEVEN =
  "M-M-M-M-M-M-M-M-M*-M-M-M-M-M-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-M-M---MM---M-M*-M-M-M-M-M-";
const FIFTY_SIX = `M-M-M-M*${"-M-M-M-M-M*".repeat(9)}-M-M-M-M-M-`;
const NANO_NINE = "M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-";
const NANO_TWELVE = `${"M-M-M-M*-".repeat(6)}M-M-M-M-`;

/** pattern; hidden, ffn, heads, width of a head; state, mamba heads, width of a mamba head. 0: derived from other values */
const CLASSES: Readonly<Record<string, readonly [string, ...number[]]>> = {
  NemotronHConfig4B: [EIGHT, 3072, 12288, 32, 128, 128, 112, 64],
  NemotronHConfig8B: [EIGHT, 4096, 21504, 32, 0, 128, 0, 64],
  NemotronHConfig47B: [FORTY_SEVEN, 8192, 30720, 64, 0, 256, 0, 64],
  NemotronHConfig56B: [FIFTY_SIX, 8192, 32768, 64, 0, 256, 0, 64],
  NemotronNano9Bv2: [NANO_NINE, 4480, 15680, 40, 128, 128, 128, 80],
  NemotronNano12Bv2: [NANO_TWELVE, 5120, 20480, 40, 128, 128, 128, 80],
};

/** The default settings of a config's class; empty for a class that is not part of NeMo. */
export function classSettings(target: unknown): Settings {
  const name = typeof target === "string" ? target.slice(target.lastIndexOf(".") + 1) : "";
  const row = Object.hasOwn(CLASSES, name) ? CLASSES[name] : undefined;
  if (row === undefined) return {};
  const [pattern, hidden, ffn, heads, headDim, state, mambaHeads, mambaHeadDim] = row as [string, ...Seven];
  return {
    ...{ pattern, hidden, ffn, heads, state, mambaHeadDim },
    ...(headDim > 0 && { headDim }),
    ...(mambaHeads > 0 && { mambaHeads }),
    ...{ kvHeads: 8, groups: 8, vocab: 131072, eps: 1e-5 },
  };
}

type Seven = [number, number, number, number, number, number, number];

/** The class with these sizes. If there is none, the 8B class, whose arguments a loader can replace. */
export function findClass(settings: Settings): string {
  const fits = Object.keys(CLASSES).find((name) => {
    const own = classSettings(name);
    return Object.keys(own).every((key) => key === "vocab" || own[key] === settings[key]);
  });
  return fits ?? "NemotronHConfig8B";
}
