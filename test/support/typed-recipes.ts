/** Conversions to GGUF with types chosen one by one, and a model in which one layer matters far more than the others. */
import { join } from "node:path";
import { gguf } from "../../formats/gguf/format.ts";
import { type ConvertOptions, convert } from "../../src/api/convert.ts";
import { bytesOf } from "../../src/core/dtype.ts";
import { fileStore } from "../../src/io/file.ts";
import type { LogitsMetrics } from "../../src/verify/report.ts";
import { ggufGolden } from "./goldens.ts";
import { copyOf, Editor, written } from "./verify/planted.ts";

/** Converts to `out`, verified. @returns with the bytes of all tensors, and their types by name */
export async function converted(source: string, out: string, options: ConvertOptions) {
  const report = await convert(source, out, options);
  const rung = report.verification!.rungs.find((one) => one.rung === "logits")!;
  const { tensors } = await gguf.read(await fileStore(out));
  const bytes = tensors.reduce((sum, { dtype, shape }) => sum + bytesOf(dtype, shape), 0);
  const types = Object.fromEntries(tensors.map(({ name, dtype }) => [name, dtype]));
  return { out, report, metrics: rung.metrics as LogitsMetrics, bytes, types };
}

/** Writes a BF16 folder of the model whose rows are whole blocks of 256, in which one layer adds 16 times as much to the stream. */
export async function sensitisedModel(work: string): Promise<string> {
  const plain = join(work, "plain");
  await convert(ggufGolden("k-bf16.gguf"), plain, { to: "hf", dtype: "bf16", verify: "off" });
  const editor = new Editor(await copyOf(plain));
  editor.bytes("backbone.layers.1.mixer.down_proj.weight", (bytes) => {
    const numbers = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2);
    for (const [i, bits] of numbers.entries()) numbers[i] = bits + (4 << 7); // times 16
  });
  return written(editor.copy, join(work, "sensitised"));
}
