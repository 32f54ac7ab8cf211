/** The files for a distillation: the script calls distill.py with flags that it has, whatever the names of the models. */
import { execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { parse } from "yaml";
import { writeDistillFiles } from "../../src/pruning/distill.ts";
import { workFolder } from "../support/goldens.ts";
import { publishedModel } from "../support/published-shapes.ts";

const work = workFolder();
const whole = publishedModel("56B");
const TEACHER = "hf://nvidia/Nemotron-H-56B-Base-8K@main";
const write = (folder: string, address: string, overwrite = false) =>
  writeDistillFiles(folder, whole, TEACHER, { address, parameters: 46_791_554_816 }, overwrite);

/** Flags of Model-Optimizer's examples/megatron_bridge/distill.py (August 2026). */
const KNOWN = [
  ...["student_hf_path", "teacher_hf_path", "trust_remote_code", "tp_size", "pp_size", "data_paths"],
  ...["data_path_to_cache", "seq_length", "mbs", "gbs", "train_iters", "lr", "min_lr", "lr_warmup_iters"],
  ...["eval_interval", "eval_iters", "output_dir"],
];

/** The arguments that the script passes to torchrun, which a double records. */
function argumentsOf(folder: string, env: Record<string, string> = {}): readonly string[] {
  const bin = join(work, "bin");
  mkdirSync(bin, { recursive: true });
  writeFileSync(join(bin, "torchrun"), '#!/bin/sh\nprintf "%s\\n" "$@"\n');
  chmodSync(join(bin, "torchrun"), 0o755);
  const given = { MODELOPT: "/opt/mo", DATA: "1.0 /data/a 2.0 /data/b", OUTPUT: "/out put" };
  const text = execFileSync(join(folder, "distill.sh"), {
    env: { PATH: `${bin}:${process.env.PATH}`, ...given, ...env },
    encoding: "utf8",
  });
  return text.trimEnd().split("\n");
}

it("calls distill.py with its flags", async () => {
  const folder = join(work, "distill");
  await write(folder, "./pruned 47B");
  expect(readdirSync(folder).sort()).toEqual(["README.md", "distill.sh", "kd_config.yaml"]);
  expect(statSync(join(folder, "distill.sh")).mode & 0o111).toBe(0o111);
  const given = argumentsOf(folder);
  const flags = given.filter((word) => word.startsWith("--")).map((flag) => flag.slice(2));
  expect(flags.filter((flag) => !["nnodes", "nproc_per_node", ...KNOWN].includes(flag))).toEqual([]);
  const valueFor = (flag: string) => given[given.indexOf(`--${flag}`) + 1];
  expect(given).toContain("/opt/mo/examples/megatron_bridge/distill.py");
  expect(valueFor("teacher_hf_path")).toBe("nvidia/Nemotron-H-56B-Base-8K");
  expect(valueFor("student_hf_path")).toBe("./pruned 47B");
  expect(given.slice(given.indexOf("--data_paths") + 1).slice(0, 4)).toEqual([
    "1.0",
    "/data/a",
    "2.0",
    "/data/b",
  ]);
  expect([valueFor("seq_length"), valueFor("gbs"), valueFor("train_iters")]).toEqual([
    "8192",
    "768",
    "10014",
  ]);
  expect(valueFor("output_dir")).toBe("/out put");
  expect(given).not.toContain("--trust_remote_code");
  const other = argumentsOf(folder, { ITERATIONS: "5", STUDENT: "s", TRUST_REMOTE_CODE: "1" });
  expect(other).toEqual(expect.arrayContaining(["5", "s", "--trust_remote_code"]));
});

it("states the loss for Megatron-Bridge", () => {
  expect(parse(readFileSync(join(work, "distill/kd_config.yaml"), "utf8"))).toEqual({
    model: {
      kd_config: {
        ...{ logit_layers: ["output_layer", "output_layer"], intermediate_layer_pairs: [] },
        ...{ skip_lm_loss: true, kd_loss_scale: 1, logit_kl_temperature: 1 },
      },
    },
  });
});

it("says how many iterations read so many tokens", () => {
  const page = readFileSync(join(work, "distill/README.md"), "utf8");
  expect(page).toContain("46,791,554,816 (83.1 %)");
  for (const row of ["| 1 billion | 159 |", "| 7 billion | 1,113 |", "| 63 billion | 10,014 |"])
    expect(page).toContain(row);
  expect(page).toContain("131,072 at TP 8");
});

it.each(["it's", "$(touch HACKED)", "`id`", 'a"b', "a\\b", "a}b", "a\nb"])(
  "names may hold %j",
  async (name) => {
    const folder = join(work, `named-${Buffer.from(name).toString("hex")}`);
    await write(folder, name);
    const given = argumentsOf(folder).join("\n");
    expect(given).toContain(`--student_hf_path\n${name}\n--`);
  },
);

it("replaces files only if it may", async () => {
  const again = (overwrite: boolean) => write(join(work, "distill"), "./pruned 47B", overwrite);
  await expect(again(false)).rejects.toMatchObject({ code: "DESTINATION_EXISTS", exit: 2 });
  await again(true);
  writeFileSync(join(work, "file"), "");
  const below = write(join(work, "file/below"), "student", true);
  await expect(below).rejects.toMatchObject({ exit: 4 });
});
