/** What a Hugging Face folder declares of its quantisation: in config.json, or in ModelOpt's file beside it. */
import type { Checkpoint } from "../core/checkpoint.ts";
import { IsologitError } from "../core/errors.ts";
import { readRange } from "../core/io.ts";
import { isJsonObject, parseJsonObject } from "../core/json.ts";

export interface DeclaredQuantization {
  readonly file: string;
  /** as config.json says it; what ModelOpt's file says stands here under the keys of config.json */
  readonly said: unknown;
}

/** ModelOpt's exporter writes it; vLLM and SGLang read it where config.json declares nothing. */
export const MODELOPT_CONFIG = "hf_quant_config.json";
const MAX_BYTES = 16 * 1024 * 1024;

/** Null where nothing is declared. @throws CONFIG_INVALID for a file of ModelOpt that is no JSON */
export async function declaredQuantization({
  config,
  sidecars,
  store,
}: Checkpoint): Promise<DeclaredQuantization | null> {
  const said = config.quantization_config;
  if (said !== undefined && said !== null) return { file: "config.json", said };
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
  return { file: MODELOPT_CONFIG, said: { quant_method: "modelopt", ...quantization } };
}
