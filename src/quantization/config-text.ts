/** Changes of config.json's text that a recast needs; every other byte stays. */
import type { TorchDType } from "../core/dtype.ts";
import type { Quantization } from "../plugins/quantization-dialect.ts";
import { memberText, withMember, withoutMember } from "./json-edit.ts";

const KEY = "quantization_config";

/** The text with this `quantization_config`. @throws CONFIG_INVALID */
export function withQuantization(configText: string, quantization: Quantization["config"]): string {
  return withMember(configText, KEY, quantization);
}

/** The text without `quantization_config`. @throws CONFIG_INVALID */
export function withoutQuantization(configText: string): string {
  return withoutMember(configText, KEY);
}

/** The text with another dtype, under each of the two keys that the text has. @throws CONFIG_INVALID */
export function withDtype(configText: string, dtype: TorchDType): string {
  return ["torch_dtype", "dtype"].reduce(
    (text, key) => (memberText(text, key)?.startsWith('"') ? withMember(text, key, dtype) : text),
    configText,
  );
}
