/**
 * What the command line promises and this version does not have. Each is refused by its name: a script must never
 * believe that a flag was obeyed because nobody complained. A row goes when its feature comes.
 */

export const ABSENT_COMMANDS = ["completion"] as const;

export const ABSENT_FLAGS = ["--calibrate"] as const;

/** Values of `--to`, and endings of a destination, that some version writes. */
export const PROMISED_FORMATS = ["hf", "nemo2", "bridge", "megatron", "packed", "gguf"] as const;
export const PROMISED_ENDINGS = [".isologit", ".nemo", ".gguf"] as const;
