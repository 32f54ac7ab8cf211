/** The fuzzer that is guided by coverage: for a moment over every parser, always with the same inputs; and it finds a planted fault. */
import { spawn } from "node:child_process";
import { expect, it } from "vitest";

const RUN = new URL("../../dist/test/fuzz/guided/run.js", import.meta.url).pathname;

async function fuzz(
  ...args: readonly string[]
): Promise<{ readonly status: number | null; readonly text: string }> {
  const child = spawn(process.execPath, [RUN, ...args], { stdio: ["ignore", "pipe", "inherit"] });
  let text = "";
  for await (const part of child.stdout) text += part;
  return { status: child.exitCode ?? (await new Promise((end) => child.on("close", end))), text };
}

it("finds nothing in the parsers", async () => {
  const { status, text } = await fuzz("--runs", "20");
  expect([status, text]).toEqual([0, expect.stringContaining('"characters"')]);
});

it("finds a planted fault, which chance alone would not", async () => {
  const { status, text } = await fuzz("--targets", "planted", "--runs", "20000", "--stop");
  expect([status, text]).toEqual([1, expect.stringContaining("TypeError: planted")]);
});
