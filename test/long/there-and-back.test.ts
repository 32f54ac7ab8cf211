/** Each golden in each format of Megatron, and home: the same bytes, side files included. */
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { convert } from "../../src/api/convert.ts";
import { filesOf, golden, workFolder } from "../support/goldens.ts";

const work = workFolder();
const quiet = { verify: "off", threads: 1 } as const;

describe.each(["tiny", "tiny-t5", "sharded", "moe", "latent-moe"])("%s", (name) => {
  it.each([{ to: "nemo2", tp: 4 }, { to: "bridge" }, { to: "megatron" }])("by way of $to", async (way) => {
    const [there, back] = ["there", "back"].map((end) => join(work, `${name} ${way.to} ${end}`)) as [
      string,
      string,
    ];
    await convert(golden(name), there, { ...quiet, ...way });
    await convert(there, back, { ...quiet, to: "hf" });
    expect(filesOf(back)).toEqual(filesOf(golden(name)));
  });
});
