/** The built program writes text, stops where it is told, and says the same as JSON. */
import { expect, it } from "vitest";
import { golden } from "../support/goldens.ts";
import { isologit } from "../support/program.ts";

const asked = [
  "generate",
  golden("tiny"),
  "--ids",
  "1,5,9",
  "--tokens",
  "5",
  "--ignore-eos",
  "--backend",
  "wasm",
];

it("text on stdout, the rate on stderr", async () => {
  const json = await isologit(...asked, "--json");
  expect(json.status, json.stderr).toBe(0);
  const report = JSON.parse(json.stdout);
  expect(report).toMatchObject({ backend: "wasm", promptIds: [1, 5, 9], stopped: "tokens" });
  expect(report.ids).toHaveLength(5);
  const plain = await isologit(...asked);
  expect([plain.status, plain.stdout]).toEqual([0, `${report.text}\n`]);
  expect(plain.stderr).toMatch(/^wasm, WASM SIMD.*: 3 tokens read in .*; 5 tokens written in .* tokens\/s; /);
});

it("a prompt too long for the memory is refused before anything is read", async () => {
  const { status, stderr } = await isologit(...asked.with(5, "1000000"), "--memory", "64MiB");
  expect(status).toBe(2);
  expect(stderr).toMatch(/^PLAN_MEMORY {2}67108864 bytes of buffers are allowed; this needs \d+, /);
});
