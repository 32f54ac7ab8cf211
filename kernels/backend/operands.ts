/** Checks the operands of a kernel, which does not check them itself. */
import { widthOf } from "../../src/core/dtype.ts";
import { IsologitError } from "../../src/core/errors.ts";
import type { KernelDefinition, Region } from "../kernel.ts";

/** @throws INTERNAL */
export function checkOperands<P>(
  kernel: Pick<KernelDefinition<P>, "id" | "inputs" | "output">,
  p: P,
  inputs: readonly Region[],
  output: Region,
): void {
  const operands = [...kernel.inputs(p), kernel.output(p)];
  const regions = [...inputs, output];
  if (regions.length !== operands.length)
    throw misuse(kernel.id, `${operands.length} operands`, regions.length);
  operands.forEach(({ name, length, dtype }, i) => {
    const bytes = length * widthOf(dtype);
    if (regions[i]!.bytes < bytes) throw misuse(kernel.id, `${bytes} bytes of ${name}`, regions[i]!.bytes);
  });
}

const misuse = (id: string, wanted: string, got: number): IsologitError =>
  new IsologitError("INTERNAL", `${id} needs ${wanted}, got ${got}`);
