/** `prune` of a model on the Hub: by the program from headers, and a whole cut. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeEach, expect, it } from "vitest";
import { prune } from "../../src/api/pruning/prune.ts";
import { sizes } from "../../src/api/pruning/sizes.ts";
import { golden, workFolder } from "../support/goldens.ts";
import { putFolder, world } from "../support/hub/world.ts";
import { start } from "../support/program.ts";

const work = workFolder();
const here = world(work);
const source = golden("sharded");
const address = "hf://nvidia/sharded";
const WASM = { backend: "wasm", threads: 1 } as const;

beforeEach(() => {
  Object.assign(process.env, here.env);
  delete process.env.HF_HUB_OFFLINE;
  here.hub.repositories.clear();
  putFolder(here.hub, "nvidia/sharded", source);
});

it("the program: `prune hf://… --sizes --json`", async () => {
  const { ended } = start(["prune", address, "--sizes", "--json"], {
    env: { PATH: process.env.PATH, ...here.env },
  });
  const { status, stdout, stderr } = await ended;
  expect(status, stderr).toBe(0);
  expect(JSON.parse(stdout)).toEqual(await sizes(source));
});

it("prune: the same cut, with the address in its certificate", async () => {
  const options = { ...WASM, to: "hf", drop: [1], ids: [1, 2, 3] };
  const report = await prune(address, join(work, "hub"), options);
  expect(report.verification?.verdict).toBe("within");
  await prune(source, join(work, "disk"), options);
  const weights = (name: string) => readFileSync(join(work, name, "model.safetensors"));
  expect(weights("hub").equals(weights("disk"))).toBe(true);
  const certificate = JSON.parse(readFileSync(join(work, "hub", "isologit.certificate.json"), "utf8"));
  expect(JSON.stringify(certificate.source)).toContain("nvidia/sharded");
});
