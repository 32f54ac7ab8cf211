/** The quantization that a Hugging Face folder declares, in config.json or in ModelOpt's file beside config.json. */
import type { Checkpoint } from "../core/checkpoint.ts";
import { IsologitError } from "../core/errors.ts";
import { readRange } from "../core/io.ts";
import { isJsonObject, parseJsonObject } from "../core/json.ts";

export interface DeclaredQuantization {
  readonly file: string;
  /** the value in config.json; the value of ModelOpt's file is translated to the keys of config.json */
  readonly value: unknown;
}

/** File that ModelOpt's exporter writes. vLLM and SGLang read it if config.json declares no quantization. */
export const MODELOPT_CONFIG = "hf_quant_config.json";
const MAX_BYTES = 16 * 1024 * 1024;

/** Null if no quantization is declared. @throws CONFIG_INVALID: ModelOpt's file is not JSON */
export async function declaredQuantization({
  config,
  sidecars,
  store,
}: Checkpoint): Promise<DeclaredQuantization | null> {
  const value = config.quantization_config;
  if (value !== undefined && value !== null) return { file: "config.json", value };
  const beside = sidecars.find(({ path }) => path === MODELOPT_CONFIG);
  if (beside === undefined) return null;
  const { file, offset, size } = beside.span;
  if (size > MAX_BYTES) {
    throw new IsologitError("LIMIT_EXCEEDED", `${size} bytes, expected at most ${MAX_BYTES}`, {
      file: MODELOPT_CONFIG,
    });
  }
  await using source = await store.open(file);
  const json = parseJsonObject(await readRange(source, offset, size), { file: MODELOPT_CONFIG });
  const { quantization } = json;
  if (quantization === undefined || !isJsonObject(quantization)) return null;
  return { file: MODELOPT_CONFIG, value: { quant_method: "modelopt", ...quantization } };
}
