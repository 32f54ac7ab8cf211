/** Silences channels of an MLP: they then add nothing to the residual stream, as if their rows and columns were cut. */
import { addRow } from "../../../kernels/index.ts";
import type { Backend } from "../../../kernels/kernel.ts";
import type { Stage } from "../../families/forward.ts";
import type { MatchedModel } from "../../families/model.ts";
import { putFloats } from "../../inference/sequences.ts";

/** The stream that the output matrix of an MLP multiplies. */
const ACTIVATION = "act";

/** Added before ReLU² or SiLU, it makes the activation of any finite number exactly 0. */
const SILENT = -3e38;

export interface ChannelMask {
  /** the stage with silenced channels if it makes the activation, else the stage itself */
  stage(stage: Stage): Stage;
  release(): void;
}

/** @param kept channels that are not silenced */
export async function maskChannels(
  backend: Backend,
  { family, dims }: MatchedModel,
  kept: readonly number[],
): Promise<ChannelMask> {
  const width = family.forward.streams(dims)[ACTIVATION]!;
  const addends = new Float32Array(width).fill(SILENT);
  for (const channel of kept) addends[channel] = 0;
  const row = backend.allocate(addends.byteLength);
  await putFloats(backend, row, addends);
  return {
    stage(stage) {
      if (stage.op !== "kernel" || stage.to !== ACTIVATION) return stage;
      return {
        ...stage,
        async run(backend, d, tokens, inputs, output) {
          const before = inputs[0]!;
          await backend.run(addRow, { tokens, width }, [before, row], before);
          await stage.run(backend, d, tokens, inputs, output);
        },
      };
    },
    release: () => backend.release(row),
  };
}
