import type { Family } from "./family.ts";
import { nemotronH } from "./nemotron-h/index.ts";

/** The families that this version knows. */
export const families: readonly Family[] = [nemotronH];
