/** A flipped bit of every tensor is named, where one reading serves bytes and logits. */
import { it } from "vitest";
import { golden } from "../support/goldens.ts";
import { copyOf } from "../support/verify/planted.ts";
import { expectFlipNamed } from "../support/verify/tensor-flip.ts";

const tiny = await copyOf(golden("tiny"));

it.each([...tiny.tensors.keys()].map((tensor, i) => [tensor, i] as const))("%s", async (tensor, i) => {
  await expectFlipNamed(tiny, tensor, i);
});
