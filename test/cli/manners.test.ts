/** What people who know other command lines type. */
import { describe, expect, it } from "vitest";
import { run } from "../support/fake-library.ts";
import { isologit } from "../support/program.ts";

const optionsOf = async (line: string) => (await run(line)).calls[0]?.options;

it("alone it prints its help", async () => {
  const { status, stdout, stderr } = await run("");
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  expect(stdout).toContain("Usage: isologit");
  expect(stdout).toContain("completion");
});

it.each([
  ["-h", /Usage: isologit/],
  ["convert -h", /Usage: isologit convert/],
  ["-V", /^\d+\.\d+\.\d+\n$/],
])("%s", async (line, said) => {
  const { status, stdout } = await run(line);
  expect(status).toBe(0);
  expect(stdout).toMatch(said);
});

it("short forms", async () => {
  expect(await optionsOf("logits a -o x.safetensors -q")).toMatchObject({ out: "x.safetensors" });
});

describe("other spellings", () => {
  it.each([
    ["recast a b --dtype fp8", { dtype: "fp8-e4m3" }],
    ["recast a b --dtype bfloat16", { dtype: "bf16" }],
    ["recast a b --dtype float8_e4m3fn", { dtype: "fp8-e4m3" }],
    ["recast a b --dtype mxfp8", { dtype: "fp8-e4m3", quantScales: "mxfp8" }],
    ["recast a b --dtype=mxfp8", { dtype: "fp8-e4m3", quantScales: "mxfp8" }],
    ["recast a b --dtype fp8 --scales row", { dtype: "fp8-e4m3", quantScales: "row" }],
    ["convert a b --to safetensors", { to: "hf" }],
    ["convert a b --to isologit", { to: "packed" }],
    ["convert a b --to hf --tensor-parallel-size 2", { tp: 2 }],
    ["convert a b --to hf --tensor-parallel=4 --pipeline-parallel 2", { tp: 4, pp: 2 }],
  ] as const)("%s", async (line, options) => expect(await optionsOf(line)).toMatchObject(options));

  it("of actions", async () => expect((await run("cache list")).calls[0]?.name).toBe("cacheLs"));
});

describe("what was probably meant", () => {
  it.each([
    ["convert a b --to packd", "did you mean packed?"],
    ["recast a b --dtype bf61", "did you mean bf16?"],
    ["convert a b --to hf --verify byte", "did you mean bytes?"],
    ["cache verfy", "did you mean verify?"],
    ["completion bsh", "did you mean bash?"],
  ])("%s", async (line, meant) => {
    const { status, stderr } = await run(line);
    expect(status).toBe(2);
    expect(stderr).toContain(meant);
  });

  it("nothing, where no word is near", async () => {
    expect((await run("recast a b --dtype int4")).stderr).not.toContain("did you mean");
  });
});

it.each(["5", "1073741824", "0"])("a size of %s is refused: it has no unit", async (size) => {
  const { status, stderr } = await run(`convert a b --to hf --max-shard-size ${size}`);
  expect(status).toBe(2);
  expect(stderr).toContain("a size with its unit");
});

it("--report may be given several times, each kind and file once", async () => {
  for (const twice of ["json=a --report json=b", "json=a --report html=a", "json=a,json=b"]) {
    const { status, stderr } = await run(`verify a b --report ${twice}`);
    expect(status).toBe(2);
    expect(stderr).toContain("each kind and each file only once");
  }
});

describe("completion", () => {
  it("prints a script, which asks the program for words", async () => {
    const { status, stdout } = await isologit("completion", "bash");
    expect(status).toBe(0);
    expect(stdout).toMatch(/complete -F \w+ isologit/);
    expect(stdout).toContain("isologit complete -- ");
    expect((await run("completion fish")).stdout).toContain("complete -c isologit");
  });

  it("knows commands and the values of flags", async () => {
    expect((await isologit("complete", "--", "conv")).stdout).toMatch(/^convert\t/m);
    const { stdout } = await isologit("complete", "--", "convert", "a", "b", "--dtype", "fp8");
    expect(stdout.split("\n").map((line) => line.trim())).toEqual(
      expect.arrayContaining(["fp8-e4m3", "fp8-e5m2"]),
    );
    expect(stdout).not.toContain("bf16");
  });
});
