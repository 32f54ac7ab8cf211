import { describe, expect, it } from "vitest";
import {
  choiceReader,
  decimalReader,
  integerReader,
  readIds,
  readSize,
  readText,
} from "../../src/cli/values.ts";
import { IsologitError } from "../../src/core/errors.ts";

const refusal = (act: () => unknown): IsologitError => {
  try {
    act();
  } catch (error) {
    if (error instanceof IsologitError) return error;
  }
  return expect.fail("it was not refused");
};

describe("sizes", () => {
  it.each([
    ["64B", 64],
    ["1GiB", 2 ** 30],
    ["512MiB", 2 ** 29],
    ["5GB", 5e9],
    ["1.5GiB", 1.5 * 2 ** 30],
    ["2TB", 2e12],
    ["3KiB", 3072],
    ["3kB", 3000],
    ["3KB", 3000],
  ])("%s is %d bytes", (given, bytes) => expect(readSize(given, "--memory")).toBe(bytes));

  it.each([
    "",
    "0",
    "1",
    "1073741824",
    "-1",
    "1G",
    "1 GiB",
    "GiB",
    "1iB",
    "1e9",
    "0x10",
    "9000TiB",
    "1gib",
    "NaN",
    "1.GiB",
  ])("%j is refused by flag, value and expectation", (given) => {
    const { code, message } = refusal(() => readSize(given, "--memory"));
    expect(code).toBe("USAGE");
    expect(message).toBe(
      `--memory is ${JSON.stringify(given)}, expected a size with its unit, such as 5GB, 1GiB or 512MiB`,
    );
  });
});

describe("token ids", () => {
  it.each([
    ["1,2,3", [1, 2, 3]],
    ["7", [7]],
    [" 1, 2 ,3\n4 5\n", [1, 2, 3, 4, 5]],
    ["[1, 2,\n 3]", [1, 2, 3]],
  ])("%j", (given, expected) => expect(readIds(given, "--ids")).toEqual(expected));

  it.each(["", "1,,2", "1,-2", "1,2.5", "a", "[]", "2147483648"])("%j is refused", (given) => {
    expect(refusal(() => readIds(given, "--ids")).message).toMatch(/^an id of --ids is "/);
  });
});

describe("numbers and words", () => {
  it("keeps whole numbers in their range", () => {
    expect(integerReader(1, 8)("8", "--threads")).toBe(8);
    for (const given of ["0", "9", "1.5", "", "x", "-1", "1e3"]) {
      expect(refusal(() => integerReader(1, 8)(given, "--threads")).message).toBe(
        `--threads is ${JSON.stringify(given)}, expected a whole number from 1 to 8`,
      );
    }
  });

  it("keeps fractions in their range", () => {
    const top1 = decimalReader(0, 1, "a fraction");
    expect([
      top1("0.98", "--top1"),
      top1("1", "--top1"),
      top1(".5", "--top1"),
      top1("1e-3", "--top1"),
    ]).toEqual([0.98, 1, 0.5, 0.001]);
    for (const given of ["1.1", "-0.1", "NaN", "Infinity", "1e999", "", "98%"]) {
      expect(refusal(() => top1(given, "--top1")).code).toBe("USAGE");
    }
    expect(refusal(() => decimalReader(0, Number.POSITIVE_INFINITY, "nats")("1e999", "--kl")).message).toBe(
      '--kl is "1e999", expected nats, 0 or more',
    );
  });

  it("takes one of its words", () => {
    const dialect = choiceReader(["compressed-tensors", "modelopt"]);
    expect(dialect("modelopt", "--quant-dialect")).toBe("modelopt");
    expect(refusal(() => dialect("awq", "--quant-dialect")).code).toBe("USAGE");
  });

  it("takes no flag for a value", () => {
    expect(readText("x", "--out")).toBe("x");
    expect(refusal(() => readText("--json", "--out")).message).toBe('--out is "--json", expected a value');
  });
});
