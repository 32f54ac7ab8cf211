/** Peak memory is a constant of the settings, not a function of the model. */
import { join } from "node:path";
import { expect, it } from "vitest";
import { workFolder } from "../support/goldens.ts";
import { json } from "../support/program.ts";
import { smallModel } from "../support/small.ts";

const work = workFolder();

it("a model of four times the size takes no more memory", async () => {
  const peaks: number[] = [];
  const sizes: number[] = [];
  for (const vocab_size of [20_000, 95_000]) {
    const config = { hidden_size: 512, vocab_size };
    const model = await smallModel(join(work, String(vocab_size)), "M-*", config);
    const options = ["--verify", "logits", "--tokens", "2", "--memory", "64MiB", "--threads", "2", "--quiet"];
    const { status, report } = await json("convert", model, join(work, `${vocab_size}.isologit`), ...options);
    expect(status).toBe(0);
    peaks.push(report.peakRssBytes);
    sizes.push(report.bytesWritten);
  }
  const [grown, larger] = [peaks[1]! - peaks[0]!, sizes[1]! - sizes[0]!];
  expect(larger).toBeGreaterThan(150e6);
  // what V8 and the allocator make of it varies by some 15 MB
  expect(grown, `peaks ${peaks.map((peak) => Math.round(peak / 1e6))} MB`).toBeLessThan(45e6);
});
