import { describe, expect, it } from "vitest";
import {
  alignRows,
  factTable,
  firstItems,
  formatDuration,
  formatRate,
  paintFor,
  wrapParts,
} from "../../src/cli/render.ts";
import {
  escapeControls,
  formatBytes,
  formatCount,
  formatMeasure,
  formatPercent,
  formatQuantity,
} from "../../src/core/figures.ts";

const plain = {
  paint: (_: string, text: string) => text,
  width: 80,
  verbose: false,
  quiet: false,
  phases: [],
};

describe("numbers carry their units", () => {
  it.each([
    [0, "0 B"],
    [1023, "1023 B"],
    [1024, "1.0 KiB"],
    [1536 * 1024, "1.5 MiB"],
    [112 * 2 ** 30, "112.0 GiB"],
    [3 * 2 ** 50, "3072.0 TiB"],
  ])("%d bytes", (count, text) => expect(formatBytes(count)).toBe(text));

  it.each([
    [0.004, "0.00 s"],
    [1.5, "1.50 s"],
    [9.999, "10.0 s"],
    [59.96, "1 min 00 s"],
    [245, "4 min 05 s"],
    [7620, "2 h 07 min"],
  ])("%d seconds", (duration, text) => expect(formatDuration(duration)).toBe(text));

  it("rates, counts, shares and measured values", () => {
    expect([formatRate(2 ** 30, 2), formatRate(1, 0)]).toEqual(["512.0 MiB/s", "too short to measure"]);
    expect([
      formatCount(999),
      formatCount(1234567),
      formatQuantity(1, "file"),
      formatQuantity(2, "file"),
    ]).toEqual(["999", "1,234,567", "1 file", "2 files"]);
    expect([0, 1e-9, 0.03125, 2.5, 123456789, Number.NaN].map(formatMeasure)).toEqual([
      "0",
      "1.0e-9",
      "0.0313",
      "2.5",
      "1.2e+8",
      "NaN",
    ]);
    expect([formatPercent(1), formatPercent(0.984375), formatPercent(0)]).toEqual([
      "100 %",
      "98.44 %",
      "0 %",
    ]);
  });
});

describe("columns", () => {
  it("align by what is seen, not by colour codes", () => {
    const red = paintFor({ isTTY: true } as never, {});
    const lines = alignRows(
      [
        [red("red", "ab"), "1"],
        ["c", "100"],
      ],
      "lr",
    );
    expect(lines).toEqual(["\u001b[31mab\u001b[39m    1", "c   100"]);
  });

  it("leave out facts without a value and indent the further lines of one", () => {
    expect(
      factTable(plain, [
        ["a", null],
        ["bc", ["1", "2"]],
        ["d", []],
      ]),
    ).toEqual(["bc  1", "    2"]);
  });

  it("break between parts, never inside", () => {
    expect(wrapParts(["aaa", "bbb", "ccc"], 8)).toEqual(["aaa, bbb,", "ccc"]);
    expect(wrapParts([], 8)).toEqual([]);
    expect(firstItems(["a", "b", "c"], 2)).toEqual(["a", "b", "and 1 more"]);
  });
});

it("shows control characters of hostile names instead of obeying them", () => {
  expect(escapeControls("a\u001b[31mb\n\u202e")).toBe("a\\u{1b}[31mb\\u{0a}\\u{202e}");
});

it("paints only on a terminal without NO_COLOR", () => {
  const output = (isTTY: boolean) => ({ isTTY }) as never;
  expect(paintFor(output(true), {})("red", "x")).not.toBe("x");
  expect(paintFor(output(true), { NO_COLOR: "" })("red", "x")).not.toBe("x");
  expect(paintFor(output(true), { NO_COLOR: "1" })("red", "x")).toBe("x");
  expect(paintFor(output(false), {})("red", "x")).toBe("x");
});
