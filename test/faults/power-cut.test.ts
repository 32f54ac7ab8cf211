/** The power fails at any point of a conversion: what is in view is whole, and a resumed run gives the same bytes. */
import { join } from "node:path";
import { expect, it } from "vitest";
import { type ConvertOptions, convert } from "../../src/api/convert.ts";
import { workFolder } from "../support/goldens.ts";
import { cutEverywhere, readInto } from "../support/power-cut.ts";
import { smallModel } from "../support/small.ts";

const work = workFolder();
const model = await smallModel(join(work, "model"), "-");
const LEAN: ConvertOptions = { threads: 1, memoryBytes: 2 ** 20, checkpointBytes: 9_000, verify: "off" };

/** A resumed run takes much longer than a look at the disk: `npm run test:long` tries it on every disk. */
const EVERY_NTH = Number(process.env.ISOLOGIT_CUTS ?? 29);

it.each<[string, string, ConvertOptions]>([
  ["a packed file", "x.isologit", {}],
  ["a verified folder with folders", "nemo2", { to: "nemo2", verify: "bytes" }],
  ["a folder in place of another", "hf", { to: "hf", dtype: "f32", overwrite: true }],
])("%s", async (_, name, extra) => {
  const folder = join(work, `in-${name}`);
  const path = join(folder, name);
  const options = { ...LEAN, ...extra };
  const outcome = await cutEverywhere(
    {
      ...{ folder, name },
      ...(options.overwrite === true && { before: readInto(model, name) }),
      run: () => convert(model, path, options),
      resume: () => convert(model, path, { ...options, resume: true }),
    },
    EVERY_NTH,
  );
  expect(outcome.points).toBeGreaterThan(30);
  expect(outcome.disks).toBeGreaterThan(20);
  expect(outcome.resumed).toBeGreaterThan(0);
});
