/** The choice of a backend, as users make it. */
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { golden, workFolder } from "../support/goldens.ts";
import { testAdapter, vulkanEnvironment } from "../support/kernels/software-gpu.ts";
import { start } from "../support/program.ts";

const work = workFolder();
const { name, software } = await testAdapter();
const env = { ...process.env, ...vulkanEnvironment() };

async function json(...args: readonly string[]) {
  const { status, stdout, stderr } = await start([...args, "--json"], { env }).ended;
  return { status, stderr, report: JSON.parse(stdout) };
}
const logits = (out: string, ...args: readonly string[]) =>
  json("logits", golden("tiny"), "--ids", "1,2,3", "--out", join(work, out), ...args);

describe("a GPU", () => {
  it("is a row of doctor", async () => {
    const { status, report } = await json("doctor");
    expect(status).toBe(0);
    expect(report.backends.map(({ id }: { id: string }) => id)).toEqual(["wasm", "webgpu"]);
    expect(report.backends[1]).toMatchObject({ available: true, device: name, software, reason: null });
  });

  it("runs the forward pass when asked for, and is named with its driver", async () => {
    const { status, report } = await logits("gpu", "--backend", "webgpu");
    expect([status, report]).toMatchObject([0, { backend: "webgpu", tokens: 3 }]);
    expect(report.device).toMatch(
      new RegExp(`^${name.replace(/[()]/g, "\\$&")}, .*${software ? "software" : ""}`),
    );
    const byName = await logits("name", "--device", name.slice(0, 6));
    expect(byName.report).toMatchObject({ backend: "webgpu", device: report.device });
  });

  it("is not taken unasked when it is none", async () => {
    const { status, report } = await logits("auto");
    expect([status, report.backend]).toEqual([0, software ? "wasm" : "webgpu"]);
    if (software)
      expect(report.device).toMatch(/^WASM SIMD, \d+ threads? \(no GPU: .* computes on a processor\)$/);
  });

  it("that is not there is refused, with the names of those that are", async () => {
    const { status, report } = await logits("none", "--device", "no such thing");
    expect([status, report.error.code]).toEqual([2, "NOT_AVAILABLE"]);
    expect(report.error.message).toContain(name);
    expect((await logits("both", "--backend", "wasm", "--device", name)).report.error.code).toBe("USAGE");
  });
});
