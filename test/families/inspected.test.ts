/** What `inspect` says of sizes, ranks and training, from headers alone. */
import { expect, it } from "vitest";
import { convert } from "../../src/api/convert.ts";
import { inspect } from "../../src/api/inspect.ts";
import { golden, workFolder } from "../support/goldens.ts";

it.each([
  [
    "tiny",
    {
      ranks: { tp: 1, pp: 1, ep: 1 },
      iteration: null,
      paddingRows: 0,
      dims: { hidden: 64, vocab: 512, heads: 4 },
    },
  ],
  [
    "megatron-tp2",
    { ranks: { tp: 2, pp: 1, ep: 1 }, iteration: 10, dims: { hidden: 64, mambaHeads: 8, groups: 2 } },
  ],
  ["nemo2-tiny", { ranks: { tp: 1 }, iteration: null, paddingRows: 12, dims: { vocab: 500 } }],
  [
    "megatron-bridge-moe",
    { iteration: 100, dims: { experts: expect.any(Number), topK: expect.any(Number) } },
  ],
])("%s", async (name, said) => expect(await inspect(golden(name))).toMatchObject(said));

it("ranks that do not divide the model are refused with those that do", async () => {
  const asked = convert(golden("tiny"), `${workFolder()}/ranks`, { to: "megatron", tp: 8 });
  await expect(asked).rejects.toMatchObject({ code: "PLAN_IMPOSSIBLE", next: "use `tp` 1 or 2" });
});
