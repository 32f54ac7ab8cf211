/**
 * Names that are reserved for later versions. Each is refused by name, so that a script never assumes that a flag
 * was obeyed. Remove a row when its feature is added.
 */

export const ABSENT_COMMANDS = ["completion"] as const;

/** Values of `--to`, and endings of a destination, that some version can write. */
export const PROMISED_FORMATS = ["hf", "nemo2", "bridge", "megatron", "packed", "gguf"] as const;
export const PROMISED_ENDINGS = [".isologit", ".nemo", ".gguf"] as const;
