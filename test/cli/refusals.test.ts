/** Nothing that was asked for is ignored: what is not here is refused by name, and nothing runs. */
import { describe, expect, it } from "vitest";
import { loadCommands } from "../../src/cli/commands/index.ts";
import { longName } from "../../src/cli/flag.ts";
import { FLAGS, type FlagName } from "../../src/cli/options.ts";
import { run } from "../support/fake-library.ts";

const commands = await loadCommands();

/** A call of each command that would succeed. */
const GOOD: Readonly<Record<string, string>> = {
  convert: "convert a b.isologit",
  merge: "merge plan.json",
  dispatch: "dispatch slurm a b.isologit --tasks 2",
  recast: "recast a b --dtype bf16",
  verify: "verify a b",
  prune: "prune a b --to hf --drop 1",
  inspect: "inspect a",
  check: "check a",
  diff: "diff a b",
  scan: "scan a",
  plan: "plan a b.isologit",
  logits: "logits a",
  importance: "importance a",
  generate: "generate a --prompt x",
  download: "download a/b",
  upload: "upload a/b c",
  auth: "auth whoami",
  cache: "cache ls",
  doctor: "doctor",
  formats: "formats",
  completion: "completion bash",
};

async function refused(line: string, code: string, saying: string) {
  const { status, stdout, stderr, calls } = await run(line);
  expect({ status, stdout, calls }).toEqual({ status: 2, stdout: "", calls: [] });
  expect(stderr.startsWith(`${code}  `), stderr).toBe(true);
  expect(stderr).toContain(saying);
  expect(stderr).toMatch(/\nnext: .+\n$/);
}

it("knows a good call of every command", async () => {
  expect(Object.keys(GOOD)).toEqual(commands.map(({ name }) => name));
  for (const line of Object.values(GOOD)) expect((await run(line)).status, line).toBe(0);
});

/** Written down a second time, from the promise and not from the code. */
const PROMISED_COMMANDS =
  "convert recast verify check inspect diff plan prune scan logits importance generate download upload cache doctor formats completion auth merge dispatch";
const PROMISED_FLAGS =
  "--to --dtype --recipe --keep-ends --quant-dialect --keep-going --calibrate --tp --pp --like --vocab-size " +
  "--max-shard-size --verify --tokens --ids --ids-file --prompt --seed --backend --device --threads --memory " +
  "--reference --tolerance --kl --top1 --resume --overwrite --include --exclude --revision --token --private " +
  "--commit-message --create-pr --json --report --events --quiet --verbose --no-progress --plan --hidden --kernels --cheap --top-k";

it("every promise is kept or refused, none is both", () => {
  const here = commands.map(({ name }) => name);
  expect([...here].sort()).toEqual(PROMISED_COMMANDS.split(" ").sort());
  const flags = Object.values(FLAGS).map(longName);
  expect(new Set(flags).size).toBe(flags.length);
  expect(PROMISED_FLAGS.split(" ").filter((flag) => !flags.includes(flag))).toEqual([]);
});

describe("promised, and not in this version", () => {
  it.each([
    ...["nemo2", "bridge", "megatron", "gguf", "nemo1"].flatMap((to) => [
      [`convert a b --to ${to}`, `--to ${to} is not written`],
      [`plan a b --to ${to}`, `--to ${to} is not written`],
    ]),
    ["convert a b.gguf", ".gguf files are not written"],
    ["convert a b.nemo", ".nemo files are not written"],
  ])("%s", (line, saying) => refused(line!, "NOT_WRITTEN", saying!));
});

describe("never promised, or not here", () => {
  it.each([
    ["transmogrify a", "unknown command 'transmogrify'"],
    ["convrt a b", "(Did you mean convert?)"],
    ["convert a", "missing required argument 'DST'"],
    ["verify a b --prompt x --ids 1", "--ids and --prompt were both given"],
    ["logits a --prompt x --ids-file y", "--ids-file and --prompt were both given"],
    ["inspect a b", "too many arguments"],
    ["inspect a --bogus", "unknown option '--bogus'"],
    ["inspect a --tensor", "(Did you mean --tensors?)"],
    ["--json inspect a", "--json is before the command"],
    ["convert a b --to onnx", '--to is "onnx", expected one of hf, packed'],
    ["convert a b", "--to is missing"],
    ["plan a b", "--to is missing"],
    ["recast a b", "--dtype is missing"],
    ["convert a b --to hf --dtype int4", '--dtype is "int4", expected one of keep, f32'],
    ["convert a b --to hf --align 512", '--align is "512", expected one of 256, 4096'],
    ["convert a b --to hf --verify maybe", '--verify is "maybe"'],
    ["verify a b --verify off", '--verify is "off", expected one of logits, bytes'],
    ["verify a b --threads 0", '--threads is "0", expected a whole number from 1 to 1024'],
    ["verify a b --top1 98", '--top1 is "98", expected a fraction, from 0 to 1'],
    ["verify a b --memory", "--memory <size>"],
    ["logits a --out --json", '--out is "--json"'],
    ["logits a --tokens 0", '--tokens is "0"'],
    ["generate a --prompt x --top-p 1.5", '--top-p is "1.5"'],
    ["generate a --prompt x --top-k 0", '--top-k is "0"'],
    ["generate a --prompt x --temperature hot", '--temperature is "hot"'],
    ["generate a --prompt x --ids 1", "--ids and --prompt were both given"],
    ["logits a --chat", "--chat is not a flag of logits; it is a flag of generate"],
    ["convert a hf://nvidia/x --to hf", 'DST is "hf://nvidia/x", expected a local path'],
    ["cache", "missing required argument 'ACTION'"],
    ["cache rm", 'REPO is "", expected owner/name'],
    ["cache mv a/b", 'ACTION is "mv", expected one of ls, verify, rm'],
    ["download a/b --include", "--include <glob>"],
    ["download a/b --include=", '--include is ""'],
  ])("%s", async (line, saying) => {
    // An error of a run with --json in it is JSON; this table reads the text.
    if (line.includes("--json")) {
      const { status, json } = await run(line);
      expect([status, json().error.code]).toEqual([2, "USAGE"]);
      expect(json().error.message).toContain(saying);
    } else await refused(line, "USAGE", saying);
  });

  it("an empty path", async () => {
    const { status, stderr } = await run(["inspect", ""]);
    expect([status, stderr.split("\n")[0]]).toEqual([2, 'USAGE  SRC is "", expected a path']);
  });

  it("every flag, with every command that it does not belong to", async () => {
    for (const { name, flags } of commands) {
      for (const flag of Object.keys(FLAGS) as FlagName[]) {
        if (flags.includes(flag)) continue;
        const long = longName(FLAGS[flag]);
        if (flag === "json") throw new Error("every command has --json");
        await refused(`${GOOD[name]} ${long} 1`, "USAGE", `${long} is not a flag of ${name}`);
      }
    }
  });
});
