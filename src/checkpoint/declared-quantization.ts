/** The quantization that a Hugging Face folder declares, in config.json or in ModelOpt's file beside config.json. */
import type { Checkpoint } from "../core/checkpoint.ts";
import { IsologitError } from "../core/errors.ts";
import { readRange } from "../core/io.ts";
import { isJsonObject, parseJsonObject } from "../core/json.ts";

/** File that ModelOpt's exporter writes. TensorRT-LLM reads it; vLLM and SGLang do if config.json declares no quantization. */
export const MODELOPT_CONFIG = "hf_quant_config.json";

/** A file that declares a quantization. */
export type DeclarationFile = "config.json" | typeof MODELOPT_CONFIG;

export interface DeclaredQuantization {
  readonly file: DeclarationFile;
  /** the value in config.json; the value of ModelOpt's file is translated to the keys of config.json */
  readonly value: unknown;
}

const MAX_BYTES = 16 * 1024 * 1024;

/** The declaration that most engines read. Null if no quantization is declared. @throws CONFIG_INVALID: ModelOpt's file is not JSON */
export async function declaredQuantization(checkpoint: Checkpoint): Promise<DeclaredQuantization | null> {
  return declaredInConfig(checkpoint) ?? (await declaredBeside(checkpoint));
}

/** Every declaration of a folder, the one that most engines read first. @throws as `declaredQuantization` */
export async function declaredQuantizations(
  checkpoint: Checkpoint,
): Promise<readonly DeclaredQuantization[]> {
  return [declaredInConfig(checkpoint), await declaredBeside(checkpoint)].filter((found) => found !== null);
}

function declaredInConfig({ config }: Checkpoint): DeclaredQuantization | null {
  const value = config.quantization_config;
  return value === undefined || value === null ? null : { file: "config.json", value };
}

async function declaredBeside({ sidecars, store }: Checkpoint): Promise<DeclaredQuantization | null> {
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
