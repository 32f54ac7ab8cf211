/** Flags about static scales of activations and of the KV cache. */
import { CALIBRATION_RULES } from "../../quantization/calibration.ts";
import { flagGroup, oneOf } from "../flag.ts";
import { readText } from "../values.ts";

export const CALIBRATION_FLAGS = flagGroup("Calibration options:", {
  calibrate: {
    spec: "--calibrate [file]",
    about:
      "run SRC over the prompts in this file (lines of text, JSON lines, or token ids), or over a bundled text, and write static scales of activations",
    read: readText,
    bare: true,
  },
  calibrateRule: {
    spec: "--calibrate-rule <rule>",
    about: "how a scale follows from the activations",
    default: "amax",
    ...oneOf(CALIBRATION_RULES),
  },
  kvCache: {
    spec: "--kv-cache <dtype>",
    about: "with --calibrate, also write scales for a KV cache of this type",
    default: "none",
    ...oneOf(["fp8"]),
  },
});
