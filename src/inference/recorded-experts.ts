/** Expert choices as a certificate stores them: 16 bits for each expert number, little endian, in Base64. */
import { z } from "zod";
import { IsologitError } from "../core/errors.ts";
import type { ExpertChoice } from "../families/forward.ts";

const Text = z.string().regex(/^[A-Za-z0-9+/]*={0,2}$/);

export const RecordedExperts = z.strictObject({
  /** index in the main stack */
  layer: z.int().nonnegative(),
  /** [T, chosen a token] experts that computed */
  followed: Text,
  /** [T, chosen a token] experts that the layer's own router chose; missing where they equal `followed` */
  own: Text.exactOptional(),
});
export type RecordedExperts = z.infer<typeof RecordedExperts>;

/**
 * Encodes the expert choices of one layer.
 *
 * @param followed, own [T, chosen a token] expert numbers, integers stored as F32
 */
export function recordExperts(layer: number, followed: Float32Array, own: Float32Array): RecordedExperts {
  const [followedText, ownText] = [encode(followed), encode(own)];
  return { layer, followed: followedText, ...(followedText !== ownText && { own: ownText }) };
}

function encode(experts: Float32Array): string {
  const bytes = Buffer.alloc(2 * experts.length);
  for (const [i, expert] of experts.entries()) bytes.writeUInt16LE(expert, 2 * i);
  return bytes.toString("base64");
}

/**
 * Decodes the expert choices of one layer.
 *
 * @returns two arrays [tokens, perToken]
 * @throws CERTIFICATE_INVALID where the length is wrong or an expert does not exist
 */
export function parseRecordedExperts(
  { layer, followed, own = followed }: RecordedExperts,
  tokens: number,
  { experts, perToken }: ExpertChoice,
): { readonly followed: Float32Array; readonly own: Float32Array } {
  const decode = (text: string): Float32Array => {
    const bytes = Buffer.from(text, "base64");
    const chosen = Float32Array.from({ length: bytes.byteLength >> 1 }, (_, i) => bytes.readUInt16LE(2 * i));
    if (bytes.byteLength === 2 * tokens * perToken && chosen.every((expert) => expert < experts))
      return chosen;
    throw new IsologitError(
      "CERTIFICATE_INVALID",
      `the certificate's experts of layer ${layer} do not fit its prompt`,
    );
  };
  return { followed: decode(followed), own: decode(own) };
}
