/** What the search for a recipe measured. */
import type { RecipeFile } from "../convert/conversion-record.ts";
import type { Limits } from "../verify/limits.ts";

export interface RecipeSearch {
  /** the recipe, as a file would state it */
  readonly recipe: RecipeFile;
  /** token ids of the prompt, which is that of a verification with the same options */
  readonly tokens: number;
  /** number of times that the weights were read */
  readonly readings: number;
  readonly backend: string;
  readonly device: string;
  readonly limits: Partial<Limits> & { readonly bits?: number };
  /** the layers that can be cast, those with the least divergence for each saved byte first */
  readonly layers: readonly LayerSensitivity[];
  /** the curve, the largest checkpoint first */
  readonly points: readonly RecipePoint[];
  /** index of the point whose recipe was chosen */
  readonly chosen: number;
}

/** What it does to cast one layer and no other. */
export interface LayerSensitivity {
  readonly layer: number;
  readonly kind: string;
  readonly bytesSaved: number;
  /** mean over positions of KL(source || recast), nats */
  readonly klMean: number;
}

/** A recipe and what it does. */
export interface RecipePoint extends Limits {
  /** the layers that it casts, in order */
  readonly cast: readonly number[];
  /** of all weights and their scales */
  readonly bytes: number;
  readonly bitsPerWeight: number;
}
