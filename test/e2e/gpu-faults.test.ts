/** A GPU that fails or is interrupted in mid-run: the program says so, ends by itself, and leaves no file. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { afterEach, describe, expect, it } from "vitest";
import { golden, workFolder } from "../support/goldens.ts";
import { testAdapter, vulkanEnvironment } from "../support/kernels/software-gpu.ts";
import { start } from "../support/program.ts";

const work = workFolder();
const { name } = await testAdapter();
afterEach(() => expect(readdirSync(work).filter((file) => file !== "events")).toEqual([]));

const gpu = { ...process.env, ...vulkanEnvironment() };
const logits = ["logits", golden("tiny"), "--backend", "webgpu", "--out", join(work, "out.safetensors")];
const generate = ["generate", golden("tiny"), "--backend", "webgpu", "--ignore-eos"];

/** Run before the program: what happens at the n-th call of a method of WebGPU, instead of it. */
const hook = (method: string, nth: number, instead: string) => `
  import { globals } from ${JSON.stringify(import.meta.resolve("webgpu"))};
  let device, calls = 0;
  const patch = (owner, name, make) => {
    const { prototype } = globals[owner];
    prototype[name] = make(prototype[name]);
  };
  patch("GPUAdapter", "requestDevice", (real) => async function (...args) {
    return (device = await real.apply(this, args));
  });
  patch(...${JSON.stringify(method)}.split("."), (real) => function (...args) {
    const call = () => real.apply(this, args);
    return ++calls === ${nth} ? (() => { ${instead} })() : call();
  });`;

const BEFORE = "device.destroy(); return call();";
const AFTER = "const result = call(); device.destroy(); return result;";
const HUGE = "args[0] = { ...args[0], size: 2 ** 30 }; return call();";
const MISTAKE = `
  const scopes = ["out-of-memory", "internal", "validation"];
  for (const scope of scopes) device.popErrorScope();
  device.createBuffer({ size: 4, usage: 0 });
  for (const scope of scopes) device.pushErrorScope(scope);
  return call();`;

describe("is told, with its exit status", () => {
  it.each([
    ["lost before the first batch", "GPUQueue.submit", 1, BEFORE, 4, "GPU_LOST"],
    ["lost after some", "GPUQueue.submit", 9, AFTER, 4, "GPU_LOST"],
    ["lost while a buffer is mapped", "GPUBuffer.mapAsync", 4, AFTER, 4, "GPU_LOST"],
    ["lost while it is written", "GPUBuffer.getMappedRange", 3, AFTER, 4, "GPU_LOST"],
    // a GiB is more than SwiftShader gives, and less than other adapters have
    ...(name.includes("SwiftShader")
      ? ([["no memory left", "GPUDevice.createBuffer", 5, HUGE, 4, "GPU_MEMORY"]] as const)
      : []),
    ["a mistake that no scope saw", "GPUQueue.submit", 4, MISTAKE, 70, "INTERNAL"],
  ] as const)("%s", async (_, method, nth, instead, exit, code) => {
    const NODE_OPTIONS = `--import=data:text/javascript,${encodeURIComponent(hook(method, nth, instead))}`;
    const env = { ...gpu, NODE_OPTIONS };
    const { status, signal, stdout, stderr } = await start([...logits, "--ids", "1,2"], { env }).ended;
    expect({ status, signal, stdout }, stderr).toEqual({ status: exit, signal: null, stdout: "" });
    expect(stderr).toMatch(new RegExp(`^${code}  `, "m"));
  });
});

describe("SIGINT ends it with 5", () => {
  async function interrupted(args: readonly string[], when: (stdout: string) => boolean) {
    const { child, ended } = start(args, { env: gpu });
    let written = "";
    child.stdout!.on("data", (text: string) => {
      written += text;
    });
    while (!when(written)) await setTimeout(5);
    child.kill("SIGINT");
    const { status, signal, stderr } = await ended;
    expect({ status, signal }, stderr).toEqual({ status: 5, signal: null });
    expect(stderr).toMatch(/^INTERRUPTED {2}/m);
  }

  it("a forward pass", async () => {
    const events = join(work, "events");
    const begun = () => existsSync(events) && readFileSync(events, "utf8").includes('"advance"');
    await interrupted([...logits, "--tokens", "100", "--events", events], begun);
  });

  it("a text, once it has begun", async () => {
    await interrupted([...generate, "--ids", "1,2", "--tokens", "400"], (text) => text !== "");
  });
});
