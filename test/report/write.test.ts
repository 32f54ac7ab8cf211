/** `--report` on the command line: which files appear, and when nothing may. */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import type { Library } from "../../src/cli/library.ts";
import { IsologitError } from "../../src/core/errors.ts";
import { DIFFERENT, run, VERIFIED } from "../support/fake-library.ts";
import { withoutCalls } from "../support/faulty-io.ts";

const folder = mkdtempSync(join(tmpdir(), "isologit-report-"));
afterAll(() => rmSync(folder, { recursive: true }));

const KINDS = ["junit", "sarif", "html", "md", "json"];
const list = (name: string) => KINDS.map((kind) => `${kind}=${join(folder, `${name}.${kind}`)}`).join(",");
const read = (name: string) => readFileSync(join(folder, name), "utf8");

describe("--report", () => {
  it.each([
    ["good", VERIFIED, 0],
    ["bad", DIFFERENT, 1],
  ])("writes every kind when the verdict is %s", async (name, report, status) => {
    const done = await run(`verify a b --json --report ${list(name)}`, {
      over: { verify: async () => report },
    });
    expect(done.status).toBe(status);
    expect(JSON.parse(read(`${name}.json`))).toEqual(done.json());
    for (const kind of KINDS) expect(read(`${name}.${kind}`)).toContain(report.verdict);
    expect(readdirSync(folder).filter((file) => file.endsWith(".partial"))).toEqual([]);
  });

  it.each(["convert a b.isologit", "recast a b --dtype bf16", "check a", "scan a", "diff a b"])(
    "%s",
    async (line) => {
      expect((await run(`${line} --report ${list("any")}`)).status).toBe(0);
      expect(read("any.junit")).toContain(`<testsuites name="isologit ${line.split(" ")[0]}"`);
    },
  );

  it("JUnit has the times of the rungs, as their events came", async () => {
    const verify: Library["verify"] = async (_a, _b, { watch } = {}) => {
      watch?.({ type: "phase", phase: "verify" });
      for (const rung of ["cover", "bytes", "logits"]) watch?.({ type: "rung", rung, verdict: "same" });
      return VERIFIED;
    };
    await run(`verify a b --report junit=${join(folder, "timed.xml")}`, { over: { verify } });
    const timed = [...read("timed.xml").matchAll(/name="([^"]*)" time="\d+\.\d{3}"/g)].map(
      ([, name]) => name,
    );
    expect(timed).toEqual(["verdict", "cover", "bytes", "logits"]);
  });

  it("says so when the command stops", async () => {
    const verify = async () => {
      throw new IsologitError("TRUNCATED", "cut short", { file: "a" });
    };
    const { status } = await run(`verify a b --report ${list("stopped")}`, { over: { verify } });
    expect(status).toBe(3);
    expect(JSON.parse(read("stopped.json"))).toMatchObject({
      error: { code: "TRUNCATED", at: { file: "a" } },
    });
    for (const kind of KINDS) expect(read(`stopped.${kind}`)).toMatch(/truncated/i);
  });

  it("appends Markdown to a step's summary, and nothing where it is not asked for", async () => {
    const GITHUB_STEP_SUMMARY = join(folder, "summary.md");
    const env = { GITHUB_STEP_SUMMARY };
    await run(`check a --report json=${join(folder, "x.json")}`, { env });
    expect(existsSync(GITHUB_STEP_SUMMARY)).toBe(false);
    for (let i = 0; i < 2; i++) await run(`check a --report md=${join(folder, "x.md")}`, { env });
    expect(read("summary.md")).toBe(read("x.md").repeat(2));
  });

  it("that cannot be written stops the run before it begins", async () => {
    mkdirSync(join(folder, "taken"), { recursive: true });
    writeFileSync(join(folder, "file"), "");
    for (const file of [join(folder, "file", "r.json"), join(folder, "taken")]) {
      const { status, calls, stderr } = await run(`verify a b --report json=${file}`);
      expect([status, calls]).toEqual([4, []]);
      expect(stderr).toContain(file);
    }
  });

  it("tells the first error where the incomplete file cannot be removed", async () => {
    const command = () => run(`scan a --report json=${join(folder, "kept.json")}`);
    const outcome = await withoutCalls(["rename", "rm"], "EROFS", command);
    expect(outcome).toMatchObject({ value: { status: 4, stderr: expect.stringContaining("in rename") } });
  });

  it.each(["pdf=x", "json", "json=", "json=a,json=b", "json=a,md=a"])("%s is refused", async (given) => {
    const { status, calls } = await run(`verify a b --report ${given}`);
    expect([status, calls]).toEqual([2, []]);
  });

  it("takes a name with a comma", async () => {
    await run(["check", "a", "--report", `md=${join(folder, "a,b.md")},json=${join(folder, "c.json")}`]);
    expect([existsSync(join(folder, "a,b.md")), existsSync(join(folder, "c.json"))]).toEqual([true, true]);
  });
});
