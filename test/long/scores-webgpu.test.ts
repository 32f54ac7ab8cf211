/** Scores on a GPU, of short prompts, beside those of WASM. */
import { join } from "node:path";
import { expect, it, vi } from "vitest";
import { importance } from "../../src/api/pruning/importance.ts";
import { golden, workFolder } from "../support/goldens.ts";
import { gpuBackend } from "../support/kernels/software-gpu.ts";
import { calibrationPrompts, parent, refuseScoresBeyond, scoresIn } from "../support/minipuzzle.ts";

const work = workFolder();
vi.mock("../../kernels/backend/select.ts", async (original) => ({
  ...(await original<typeof import("../../kernels/backend/select.ts")>()),
  selectBackend: async ({ backend }: { backend: string }) => {
    if (backend === "webgpu") return await gpuBackend();
    const { createWasmBackend } = await import("../../kernels/backend/wasm.ts");
    return await createWasmBackend({ threads: 1, memoryBytes: 256 << 20 });
  },
}));

it.each([
  [
    "layers",
    golden("tiny"),
    {
      prompts: [
        [1, 2, 3, 4, 5],
        [6, 7, 8],
      ],
    },
  ],
  ["units", parent, { prompts: calibrationPrompts.slice(0, 2), cheap: true }],
] as const)(
  "has the scores of %s that WASM has, within the limits of an F32 run",
  async (_, model, options) => {
    const scored = async (backend: "wasm" | "webgpu") => {
      const out = join(work, "scores.safetensors");
      const report = await importance(model, { out, backend, overwrite: true, ...options });
      expect(report.backend).toBe(backend);
      return await scoresIn(out);
    };
    refuseScoresBeyond(await scored("webgpu"), await scored("wasm"));
  },
);
