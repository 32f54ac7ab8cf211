/** A parser with a fault, which shows that the fuzzer finds faults: chance alone would need some 2^16 inputs. */
import { IsologitError } from "../../../src/core/errors.ts";

export function parsePlanted([a, b]: Uint8Array): void {
  if (a !== 0x46) throw invalid(0);
  if (b !== 0x55) throw invalid(1);
  throw new TypeError("planted");
}

const invalid = (offset: number): IsologitError =>
  new IsologitError("HEADER_INVALID", "not the magic number", { offset });
