import { bamba } from "./bamba/index.ts";
import { falconH1 } from "./falcon_h1/index.ts";
import type { Family } from "./family.ts";
import { graniteMoeHybrid } from "./granitemoehybrid/index.ts";
import { llama } from "./llama/index.ts";
import { mixtral } from "./mixtral/index.ts";
import { nemotron } from "./nemotron/index.ts";
import { nemotronH } from "./nemotron-h/index.ts";

/** The families that this version knows. */
export const families: readonly Family[] = [
  nemotronH,
  llama,
  nemotron,
  mixtral,
  bamba,
  falconH1,
  graniteMoeHybrid,
];
