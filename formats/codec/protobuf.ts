/** The wire format of Protocol Buffers: the fields of one message, in order. What a field means is not known here. */
import { type ErrorLocation, IsologitError } from "../../src/core/errors.ts";

/** A field of a message: a whole number, or bytes: 4 or 8 of a fixed number, any count of a text or an inner message. */
export type WireField =
  | { readonly number: number; readonly kind: "varint"; readonly value: bigint }
  | { readonly number: number; readonly kind: "fixed32" | "fixed64" | "bytes"; readonly value: Uint8Array };

/** Kinds by their number. Groups (3 and 4) went out of use before any format that is read here. */
const KINDS = { 0: "varint", 1: "fixed64", 2: "bytes", 5: "fixed32" } as const;
const FIXED_BYTES = { fixed32: 4, fixed64: 8 } as const;
/** 64 bits in groups of 7 */
const MAX_VARINT_BYTES = 10;

/**
 * The fields of a message. Their bytes are views, so that nothing is allocated for a length that is not there.
 *
 * @param at where the message begins: `at.offset` is added to the offsets of errors
 * @throws HEADER_INVALID for a field that no writer makes; TRUNCATED for one that ends after the message
 */
export function* wireFields(message: Uint8Array, at: ErrorLocation): Generator<WireField> {
  let position = 0;
  const fail = (code: "HEADER_INVALID" | "TRUNCATED", what: string) =>
    new IsologitError(code, what, { ...at, offset: (at.offset ?? 0) + position });
  const varint = (): bigint => {
    let value = 0n;
    for (let i = 0; i < MAX_VARINT_BYTES; i++) {
      const byte = message[position];
      if (byte === undefined) throw fail("TRUNCATED", "a number ends after the message");
      position++;
      value |= BigInt(byte & 0x7f) << BigInt(7 * i);
      if (byte < 0x80) return BigInt.asIntN(64, value);
    }
    throw fail("HEADER_INVALID", `a number of more than ${MAX_VARINT_BYTES} bytes`);
  };
  while (position < message.byteLength) {
    const tag = varint();
    const number = Number(tag >> 3n);
    const kind = KINDS[Number(tag & 7n) as keyof typeof KINDS] as (typeof KINDS)[0 | 1 | 2 | 5] | undefined;
    if (kind === undefined || number < 1)
      throw fail("HEADER_INVALID", `field ${number} of kind ${tag & 7n} is not known`);
    if (kind === "varint") {
      yield { number, kind, value: varint() };
      continue;
    }
    const size = kind === "bytes" ? varint() : BigInt(FIXED_BYTES[kind]);
    const left = message.byteLength - position;
    if (size < 0n || size > BigInt(left))
      throw fail(
        "TRUNCATED",
        `field ${number} has ${BigInt.asUintN(64, size)} bytes; the message has ${left} more`,
      );
    yield { number, kind, value: message.subarray(position, position + Number(size)) };
    position += Number(size);
  }
}
