/** Nemotron-H models of published shapes, known from their config.json alone. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { PUBLISHED, type PublishedName } from "../../fixtures/generate/published.ts";
import { families } from "../../src/families/index.ts";
import type { RecognisedModel } from "../../src/families/model.ts";
import { modelOf } from "../../src/families/recognise.ts";
import { golden } from "./goldens.ts";
import { memoryStore } from "./memory-store.ts";

/** The model that a published config describes. No weight exists. */
export function publishedModel(name: PublishedName): RecognisedModel {
  const tiny = JSON.parse(readFileSync(join(golden("tiny"), "config.json"), "utf8"));
  const shape = PUBLISHED[name];
  const config = {
    ...tiny,
    ...shape,
    num_hidden_layers: shape.hybrid_override_pattern.length,
  };
  const checkpoint = {
    ...{ format: "hf", dialect: "hf", config, tensors: [], objects: [], sidecars: [], weightFiles: [] },
    ...{ recasts: [], store: memoryStore("memory", new Map()) },
  };
  return modelOf(checkpoint, families);
}
