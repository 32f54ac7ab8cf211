/** Limits on numbers of a config with which memory grows. */
import { type ErrorLocation, IsologitError } from "../../core/errors.ts";

/** Published models have up to 126 layers with two parts each, and up to 118 layers of 512 experts. */
const MAX_LAYERS = 4096;
const MAX_EXPERTS = 2 ** 18;

/**
 * @param layers  layers of all stacks
 * @param experts experts of all layers
 * @throws LIMIT_EXCEEDED
 */
export function refuseExcess(layers: number, experts: number, at: ErrorLocation = {}): void {
  const counts = [
    ["layers", layers, MAX_LAYERS],
    ["experts", experts, MAX_EXPERTS],
  ] as const;
  for (const [what, count, most] of counts) {
    if (count > most)
      throw new IsologitError("LIMIT_EXCEEDED", `${count} ${what}, expected at most ${most}`, at);
  }
}
