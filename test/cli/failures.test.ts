/** How a run ends when it does not end well: status, words, streams. */
import { describe, expect, it } from "vitest";
import { nameFlags } from "../../src/cli/flag-names.ts";
import { ERRORS, type ErrorCode, IsologitError } from "../../src/core/errors.ts";
import type { Verdict } from "../../src/verify/report.ts";
import { CONVERTED, DIFFERENT, METRICS, run, VERIFIED } from "../support/fake-library.ts";

const failing = (error: unknown) => ({
  over: { inspect: async () => Promise.reject(error), convert: async () => Promise.reject(error) },
});

describe("every code ends with its status, as text and as JSON", () => {
  it.each(Object.keys(ERRORS) as ErrorCode[])("%s", async (code) => {
    const at = { file: "model.safetensors", tensor: "backbone.D", offset: 4096, index: 7 };
    const error = new IsologitError(code, "found 1, expected 2", at);
    // An interruption says how to go on with this very command, not with just any.
    const next = code === "INTERRUPTED" ? "run the same command again" : nameFlags(ERRORS[code].next);
    const text = await run("inspect a", failing(error));
    expect([text.status, text.stdout]).toEqual([ERRORS[code].exit, ""]);
    expect(text.stderr).toBe(
      `${code}  found 1, expected 2, in model.safetensors, tensor backbone.D, element 7, byte 4096\nnext: ${next}\n`,
    );
    const json = await run("inspect a --json", failing(error));
    expect([json.status, json.stderr]).toEqual([ERRORS[code].exit, ""]);
    expect(json.json()).toEqual({ error: { code, message: "found 1, expected 2", at, next } });
  });
});

describe("errors that are not ours", () => {
  it("are our bug, with a stack only where asked for", async () => {
    const world = failing(new TypeError("x is undefined"));
    const text = await run("inspect a", world);
    expect(text.status).toBe(70);
    expect(text.stderr).toBe(`INTERNAL  x is undefined\nnext: ${ERRORS.INTERNAL.next}\n`);
    expect((await run("inspect a --verbose", world)).stderr).toContain("failures.test.ts");
    const json = await run("inspect a --json --verbose", world);
    expect(json.json().error.code).toBe("INTERNAL");
    expect(json.stderr).toContain("failures.test.ts");
    expect((await run("inspect a", failing("just text"))).stderr).toContain("INTERNAL  just text");
  });

  it("are the file system's where it says so", async () => {
    const lost = Object.assign(new Error("gone"), { code: "ENOENT", syscall: "open", path: "/x/y" });
    const { status, stderr } = await run("inspect a", failing(lost));
    expect([status, stderr.split("\n")[0]]).toEqual([4, "NOT_FOUND  no such file or folder, in /x/y"]);
  });

  it("do not hide the error that made them", async () => {
    const first = new IsologitError("DISK_FULL", "no room");
    const both = Object.assign(new Error("close failed"), { name: "SuppressedError", suppressed: first });
    expect((await run("inspect a", failing(both))).status).toBe(4);
  });
});

it("hostile names do not steer the terminal", async () => {
  const error = new IsologitError("NAME_INVALID", "found \u001b[2J", { tensor: "a\u001b]0;x\u0007" });
  expect((await run("inspect a", failing(error))).stderr).not.toContain("\u001b");
});

describe("a verdict decides the status", () => {
  const cases: [Verdict, number][] = [
    ["same", 0],
    ["within", 0],
    ["different", 1],
    ["unproven", 1],
  ];
  it.each(cases)("%s: %d", async (verdict, status) => {
    const verification = { ...VERIFIED, verdict };
    const over = {
      verify: async () => verification,
      convert: async () => ({ ...CONVERTED, verification }),
      recast: async () => ({ ...CONVERTED, verification }),
    };
    for (const line of ["verify a b", "convert a b.isologit", "recast a b --dtype bf16"]) {
      for (const json of ["", " --json"]) expect((await run(line + json, { over })).status).toBe(status);
    }
  });

  it.each(["", " --json", " --quiet"])("a bad one names the staged folder%s", async (flag) => {
    const report = { ...CONVERTED, staged: "out.isologit.partial", verification: DIFFERENT };
    const { stdout, stderr, status } = await run(`convert a b.isologit${flag}`, {
      over: { convert: async () => report },
    });
    expect(status).toBe(1);
    expect(stderr).toBe(
      "the verdict is different: out.isologit was not written; the new files are staged in " +
        "out.isologit.partial\nnext: read the verdict above, remove the staged files, or start again with --overwrite\n",
    );
    if (flag === " --json") expect(JSON.parse(stdout)).toEqual(report);
  });

  it("no verdict was asked for", async () => {
    const over = { convert: async () => ({ ...CONVERTED, verification: null }) };
    expect((await run("convert a b.isologit --verify off", { over })).status).toBe(0);
  });

  it("a kernel out of its bound fails the doctor", async () => {
    expect((await run("doctor --kernels --json")).status).toBe(1);
    expect((await run("doctor --json")).status).toBe(0);
  });
});

describe("JSON", () => {
  it("is the report, whole and alone", async () => {
    const { stdout, stderr, json } = await run("verify a b --json");
    expect(json()).toEqual(VERIFIED);
    expect(stdout.endsWith("}\n")).toBe(true);
    expect(stderr).toBe("");
  });

  it("has no word for a number that is not finite", async () => {
    const metrics = { ...METRICS, maxAbs: Number.NaN, klMean: Number.POSITIVE_INFINITY };
    const rungs = [{ rung: "logits", verdict: "different", metrics }] as const;
    const { json } = await run("verify a b --json", {
      over: { verify: async () => ({ ...VERIFIED, rungs }) },
    });
    expect(json().rungs[0].metrics).toEqual({ ...METRICS, maxAbs: null, klMean: null });
  });
});
