/** Rows that pad a vocabulary are in no role: nothing compares them, and what they hold is told. */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { convert } from "../../src/api/convert.ts";
import { verify } from "../../src/api/verify.ts";
import { golden, workFolder } from "../support/goldens.ts";

const work = workFolder();
const BYTES = { threads: 1, memoryBytes: 64 * 1024 * 1024, verify: "bytes" } as const;
/** The vocabulary of 512 words is padded for eight ranks. */
const [ROWS, WIDTH] = [512, 64];

it("says how many rows and how large, and is quiet where they are zero", async () => {
  const out = `${work}/nemo2`;
  await convert(golden("tiny"), out, { ...BYTES, verify: "off", to: "nemo2", tp: 8 });
  expect((await verify(golden("tiny"), out, BYTES)).findings).toEqual([]);
  fill(join(out, "weights"), 0x4280); // 64 in BF16
  const { verdict, findingDetails } = await verify(golden("tiny"), out, { ...BYTES, strict: true });
  expect(verdict).toBe("same");
  expect(findingDetails).toMatchObject(
    ["embedding.word_embeddings.weight", "output_layer.weight"].map((tensor) => ({
      rule: "padding-values",
      severity: "note",
      at: { tensor },
      message: expect.stringContaining(`${tensor}: ${ROWS} rows of padding hold values up to 64`),
    })),
  );
});

/** Writes one value over both runs of zeros that are the padding. */
function fill(folder: string, bits: number): void {
  const zeros = Buffer.alloc(ROWS * WIDTH * 2);
  const values = Buffer.from(new Uint16Array(ROWS * WIDTH).fill(bits).buffer);
  for (const file of readdirSync(folder).filter((name) => name.endsWith(".distcp"))) {
    const bytes = readFileSync(join(folder, file));
    for (let at = bytes.indexOf(zeros); at >= 0; at = bytes.indexOf(zeros, at)) values.copy(bytes, at);
    writeFileSync(join(folder, file), bytes);
  }
}
