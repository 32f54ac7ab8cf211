/** Errors of records that cannot be read or written. */
import { IsologitError } from "../../../core/errors.ts";

export function invalidRecordError(message: string): IsologitError {
  const next = "compare the config with the one of the training run";
  return new IsologitError("CONFIG_INVALID", message, {}, { next });
}

/** The error for a model that Megatron does not have. */
export function notInMegatron(found: string): IsologitError {
  const next = "convert it to hf or packed";
  return new IsologitError("PLAN_IMPOSSIBLE", `Megatron cannot run this model: ${found}`, {}, { next });
}

/** The error for a record of a model that no Hugging Face class computes. */
export function unsupportedRecordError(found: string): IsologitError {
  const next =
    "compare the config with the one of the training run: no class of Transformers computes this model";
  return new IsologitError("UNSUPPORTED", found, {}, { next });
}
