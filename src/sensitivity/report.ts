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
  /** the layers that can be cast, those with the least divergence for each saved byte first; empty where each tensor has a type */
  readonly layers: readonly LayerSensitivity[];
  /** the tensors whose types are chosen, in the order of the destination; absent where layers are cast */
  readonly tensors?: readonly TensorSensitivity[];
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

/** What it does to give one tensor its smallest type, and no other a type. */
interface TensorSensitivity {
  /** name in the destination */
  readonly tensor: string;
  readonly role: string;
  /** null outside of the layers */
  readonly layer: number | null;
  /** the type that was measured */
  readonly smallest: string;
  /** mean over positions of KL(source || recast), nats */
  readonly klMean: number;
  /** the type that was chosen */
  readonly dtype: string;
}

/** A recipe and what it does. */
export interface RecipePoint extends Limits {
  /** the layers that it casts, in order */
  readonly cast: readonly number[];
  /** of all weights and their scales */
  readonly bytes: number;
  /** where each tensor has a type: of the weights in tensors whose type is chosen */
  readonly bitsPerWeight: number;
  /** number of tensors by the chosen type; absent where layers are cast */
  readonly types?: Readonly<Record<string, number>>;
  /** the kind of file that has the same types */
  readonly kind?: string;
}
