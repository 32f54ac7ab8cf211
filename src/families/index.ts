import type { Family } from "./define.ts";
import { nemotronH } from "./nemotron-h/index.ts";

/** The families that this version knows. */
export const families: readonly Family[] = [nemotronH];
