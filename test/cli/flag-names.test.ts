/** The library names its options, and the command line the flags that set them. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import type { Certificate } from "../../src/certificate/certificate.ts";
import { longName } from "../../src/cli/flag.ts";
import { nameFlags } from "../../src/cli/flag-names.ts";
import type { Library } from "../../src/cli/library.ts";
import { FLAGS } from "../../src/cli/options.ts";
import type { Conversion } from "../../src/convert/conversion-record.ts";
import { IsologitError } from "../../src/core/errors.ts";
import { commandOf } from "../../src/model-card/command.ts";
import type { VerifyReport } from "../../src/verify/report.ts";
import { CONVERTED, PLANNED, run, VERIFIED } from "../support/fake-library.ts";
import { workFolder } from "../support/goldens.ts";

const work = workFolder();

it("names the flag of an option, and leaves other words in backquotes", () => {
  expect(nameFlags("`maxShardBytes` and `sign`, not `isologit plan` or `other`")).toBe(
    "--max-shard-size and --sign, not `isologit plan` or `other`",
  );
});

it("errors and findings name flags, in text and in JSON", async () => {
  const failing = () => {
    throw new IsologitError("USAGE", "`vocabSize` is 1", {}, { next: "use `dtype` bf16" });
  };
  const failed = await run("verify a b --json", { over: { verify: failing } });
  expect(failed.json().error).toMatchObject({ message: "--vocab-size is 1", next: "use --dtype bf16" });
  const at = { file: "x", tensor: null, offset: null };
  const finding = { rule: "r", severity: "error", at, message: "no config", next: "use `like`" } as const;
  const found = await run("check a", {
    over: { check: async () => ({ servable: null, ok: false, findings: [finding] }) },
  });
  expect(found.stdout).toContain("next: use --like");
});

it("warnings name flags, in text, in the events file and in the plan", async () => {
  const warning = "give `vocabSize`";
  const convert: Library["convert"] = async (_from, _to, options) => {
    options?.watch?.({ type: "warning", message: warning });
    return { ...CONVERTED, verification: { ...VERIFIED, ...reported("use more `tokens`") } };
  };
  const events = join(work, "events.jsonl");
  const converted = await run(`convert a b.isologit --json --events ${events}`, { over: { convert } });
  expect(converted.stderr).toContain("give --vocab-size");
  expect(readFileSync(events, "utf8")).toContain("give --vocab-size");
  expect(converted.json().verification).toMatchObject(reported("use more --tokens"));
  const verify: Library["verify"] = async () => ({ ...VERIFIED, ...reported("use more `tokens`") });
  expect((await run("verify a b --json", { over: { verify } })).json()).toMatchObject(
    reported("use more --tokens"),
  );
  const plan: Library["plan"] = async () => ({ ...PLANNED, warnings: [warning] });
  expect((await run("plan a b.isologit --json", { over: { plan } })).json().warnings).toEqual([
    "give --vocab-size",
  ]);
});

function reported(message: string): Pick<VerifyReport, "findings" | "findingDetails"> {
  const at = { file: "", tensor: null, offset: null };
  return { findings: [message], findingDetails: [{ rule: "control-missed", severity: "note", at, message }] };
}

it("a model card names the flags of this command line", () => {
  const conversion: Required<Conversion> = {
    dtype: "fp8-e4m3",
    recipe: "all-linear",
    keepEnds: 1,
    quantDialect: "modelopt",
    quantScales: "row",
    fnuz: "relabel",
    fuseScales: true,
    calibrate: { prompt: "PROMPT", tokens: 8, sha256: "0".repeat(64) },
    calibrateRule: "mse",
    kvCache: "fp8",
    maxShardBytes: 2,
    alignment: 256,
    tp: 3,
    pp: 4,
    vocabSize: 5,
    like: "hf://a/b",
    iteration: 6,
    allowOverflow: true,
    keepExtra: true,
  };
  const certificate = { source: { format: "hf" }, destination: { format: "hf" }, recast: {}, conversion };
  const { lines } = commandOf(certificate as unknown as Certificate, undefined)!; // the card reads only these fields
  const values = { ...conversion, calibrate: "PROMPT", maxShardBytes: "2B" };
  const options = Object.entries(values).map(([name, value]) =>
    value === true ? nameFlags(`\`${name}\``) : `${nameFlags(`\`${name}\``)} ${value}`,
  );
  expect(lines).toEqual([`npx isologit convert SRC ./out --to hf ${options.join(" ")}`]);
});

/** The command line of a model card; the test above compares its flags with those of this command line. */
const CARD = "src/model-card/command.ts";

it("the library spells no flag in a message", () => {
  const root = new URL("../../", import.meta.url).pathname;
  const flags = Object.values(FLAGS).map(longName).join("|");
  const spelt = new RegExp(`["\`( ](${flags})\\b`);
  const isAllowed = (line: string) => /^\s*(\*|\/\/|\/\*)|isologit [a-z]+ /.test(line); // comments and whole commands
  const files = ["src", "formats", "kernels"]
    .flatMap((folder) =>
      readdirSync(join(root, folder), { recursive: true, encoding: "utf8" }).map(
        (file) => `${folder}/${file}`,
      ),
    )
    .filter((file) => /^(?!src\/(cli|report|dispatch)\/).*\.ts$/.test(file) && file !== CARD); // dispatch writes whole commands
  const spelling = files.flatMap((file) =>
    readFileSync(join(root, file), "utf8")
      .split("\n")
      .filter((line) => spelt.test(line.replace(/ \/\/ .*$/, "")) && !isAllowed(line))
      .map((line) => `${file}: ${line.trim()}`),
  );
  expect(spelling).toEqual([]);
});
