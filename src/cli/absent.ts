/** Names that are reserved for later versions, and refused by name. Remove a row when its feature is added. */

/** Values of `--to`, and endings of a destination, that some version can write. */
export const PROMISED_FORMATS = ["hf", "nemo2", "bridge", "megatron", "packed", "gguf"] as const;
export const PROMISED_ENDINGS = [".isologit", ".nemo", ".gguf"] as const;
