/** Folders of NeMo and Megatron that we place, loaded by torch itself, without Megatron: every key, every byte. */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { bridge } from "../../formats/bridge/format.ts";
import type { Format } from "../../formats/format.ts";
import { megatron } from "../../formats/megatron/format.ts";
import { nemo2 } from "../../formats/nemo2/format.ts";
import { tensorKey } from "../../src/core/checkpoint.ts";
import { fileStore } from "../../src/io/file.ts";
import { carriedOut, saved } from "../support/carry.ts";
import { bytesIn } from "../support/content.ts";
import { golden, workFolder } from "../support/goldens.ts";
import { absent, titled } from "./judge.ts";
import { isologit } from "./program.ts";

const oracle = new URL("../../../shared/oracle", import.meta.url).pathname;
const work = workFolder();

/** What a script says on stdout. @throws what it said in failing */
function python(script: string, ...args: readonly string[]): unknown {
  const { status, stdout, stderr } = spawnSync(`${oracle}/run`, ["python3", script, ...args], {
    encoding: "utf8",
    maxBuffer: 64 * 1024 * 1024,
  });
  if (status !== 0) throw new Error(stderr);
  return JSON.parse(stdout);
}

/** A golden folder as our reader understands it, placed anew by our writer. */
async function rewritten(format: Format, name: string): Promise<string> {
  const model = await format.read(await fileStore(golden(name)));
  const byKey = new Map(model.tensors.map((tensor) => [tensorKey(tensor), tensor]));
  const objects = model.objects.filter((object) => object.includes("_extra_state"));
  const { config, dialect, tensors, sidecars } = model;
  const wanted = { config, dialect, tensors, objects, sidecars, weightFiles: [], options: {} };
  const bytesOf = (key: string) => bytesIn(model.store, byKey.get(key)!);
  return saved(await carriedOut(format.writes!, wanted, bytesOf, model.store), join(work, name));
}

type Dump = Record<string, { sha256?: string; bytes?: number }>;
type Loaded = Record<string, { args: object; model: Record<string, object> }>;

const tensorsOf = (dump: Dump): Dump =>
  Object.fromEntries(Object.entries(dump).filter(([, { sha256 }]) => sha256 !== undefined));

describe.skipIf(absent !== null)(titled("torch.distributed.checkpoint"), () => {
  it.each<[Format, string, string]>([
    [nemo2, "nemo2-tp2", "weights"],
    [bridge, "megatron-bridge-moe", "iter_0000000"],
  ])("loads what $id places", async (format, name, folder) => {
    const dump = python(`${oracle}/dcp_dump.py`, join(await rewritten(format, name), folder)) as Dump;
    const real: Dump = JSON.parse(readFileSync(golden(`${name}/dcp.json`), "utf8"));
    expect(tensorsOf(dump)).toEqual(tensorsOf(real));
    const states = (of: Dump) => Object.keys(of).filter((key) => key.includes("_extra_state"));
    expect(states(dump)).toEqual(states(real));
  });
});

describe.skipIf(absent !== null)(titled("torch.load"), () => {
  it("loads the ranks that we place as it loads the real ones", async () => {
    const folder = await rewritten(megatron, "megatron-tp2");
    const fileOf = (iteration: string, rank: number) => `${iteration}/mp_rank_0${rank}/model_optim_rng.pt`;
    const ours = [0, 1].map((rank) => join(folder, fileOf("iter_0000000", rank)));
    const real = [0, 1].map((rank) => golden(join("megatron-tp2", fileOf("iter_0000010", rank))));
    const loaded = python(new URL("torch_load.py", import.meta.url).pathname, ...ours, ...real) as Loaded;
    for (const rank of [0, 1]) {
      const [mine, theirs] = [loaded[ours[rank]!]!, loaded[real[rank]!]!];
      const weights = Object.entries(theirs.model).filter(([key]) => !key.endsWith("_extra_state"));
      expect(mine.model).toEqual(Object.fromEntries(weights));
      expect(mine.args).toEqual(theirs.args);
    }
  });
});

/** Each golden was written from the twin that is converted here. */
describe.skipIf(absent !== null)(titled("what `convert` makes of a Hugging Face folder"), () => {
  const convert = (twin: string, to: string, ...options: readonly string[]) => {
    const out = join(work, `${to}${options.join("")}-of-${twin}`);
    isologit("convert", golden(`${twin}/hf`), out, "--to", to, ...options);
    return out;
  };

  it.each([
    ["nemo2", "nemo2-tiny", "weights", [], "nemo2-tiny"],
    ["nemo2", "nemo2-tiny", "weights", ["--tp", "2"], "nemo2-tp2"],
    ["nemo2", "nemo2-tiny", "weights", ["--tp", "4"], "nemo2-tiny"],
    ["bridge", "nemo2-tiny", "iter_0000000", [], "nemo2-tiny"],
    ["bridge", "megatron-bridge-moe", "iter_0000000", [], "megatron-bridge-moe"],
  ] as const)("%s of %s, %s %j, dumps as the real %s", (to, twin, folder, options, real) => {
    const dump = tensorsOf(
      python(`${oracle}/dcp_dump.py`, join(convert(twin, to, ...options), folder)) as Dump,
    );
    const wanted = tensorsOf(JSON.parse(readFileSync(golden(`${real}/dcp.json`), "utf8")));
    // NeMo's keys stand under `module.`, Megatron's own under nothing
    const bare = (of: Dump) =>
      Object.fromEntries(Object.entries(of).map(([k, v]) => [k.replace(/^module\./, ""), v]));
    expect(to === "bridge" ? bare(dump) : dump).toEqual(to === "bridge" ? bare(wanted) : wanted);
  });

  it("megatron at two ranks is loaded as the real ranks are", () => {
    const folder = convert("nemo2-tiny", "megatron", "--tp", "2");
    const fileOf = (root: string, iteration: string, rank: number) =>
      join(root, iteration, `mp_rank_0${rank}/model_optim_rng.pt`);
    const ours = [0, 1].map((rank) => fileOf(folder, "iter_0000000", rank));
    const real = [0, 1].map((rank) => fileOf(golden("megatron-tp2"), "iter_0000010", rank));
    const loaded = python(new URL("torch_load.py", import.meta.url).pathname, ...ours, ...real) as Loaded;
    for (const rank of [0, 1]) {
      const weights = Object.entries(loaded[real[rank]!]!.model).filter(
        ([key]) => !key.endsWith("_extra_state"),
      );
      expect(loaded[ours[rank]!]!.model).toEqual(Object.fromEntries(weights));
    }
  });
});
