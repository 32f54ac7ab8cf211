/** The experts that tokens chose, as a certificate holds them: 16 bits each, little endian, in Base64. */
import { z } from "zod";
import { IsologitError } from "../core/errors.ts";
import type { ExpertChoice } from "../families/forward.ts";

const Text = z.string().regex(/^[A-Za-z0-9+/]*={0,2}$/);

export const RecordedExperts = z.strictObject({
  /** of the main stack */
  layer: z.int().nonnegative(),
  /** [T, chosen a token]: those that computed */
  followed: Text,
  /** those that its own router would have chosen; absent where they are the same */
  own: Text.exactOptional(),
});
export type RecordedExperts = z.infer<typeof RecordedExperts>;

/** @param followed [T, chosen a token], whole numbers */
export function recordExperts(layer: number, followed: Float32Array, own: Float32Array): RecordedExperts {
  const [one, other] = [encode(followed), encode(own)];
  return { layer, followed: one, ...(one !== other && { own: other }) };
}

function encode(experts: Float32Array): string {
  const bytes = Buffer.alloc(2 * experts.length);
  for (const [i, expert] of experts.entries()) bytes.writeUInt16LE(expert, 2 * i);
  return bytes.toString("base64");
}

/** @throws CERTIFICATE_INVALID for what `tokens` of this layer cannot have chosen */
export function parseRecordedExperts(
  { layer, followed, own = followed }: RecordedExperts,
  tokens: number,
  { experts, perToken }: ExpertChoice,
): { readonly followed: Float32Array; readonly own: Float32Array } {
  const decoded = (text: string): Float32Array => {
    const bytes = Buffer.from(text, "base64");
    const chosen = Float32Array.from({ length: bytes.byteLength >> 1 }, (_, i) => bytes.readUInt16LE(2 * i));
    if (bytes.byteLength === 2 * tokens * perToken && chosen.every((expert) => expert < experts))
      return chosen;
    throw new IsologitError(
      "CERTIFICATE_INVALID",
      `its experts of layer ${layer} are not those of its prompt`,
    );
  };
  return { followed: decoded(followed), own: decoded(own) };
}
