import { describe, expect, it } from "vitest";
import { type Box, refuseGaps } from "../../../formats/torch-dist/tiles.ts";
import { codeOf } from "../../support/errors.ts";

const box = (origin: number[], shape: number[]): Box => ({ start: origin, shape });
const fault = (shape: number[], boxes: readonly Box[]) => codeOf(() => refuseGaps(shape, boxes, {}));

describe("pieces of a tensor", () => {
  it.each<[string, number[], Box[]]>([
    ["the whole", [4, 3], [box([0, 0], [4, 3])]],
    ["rows in any order", [4, 3], [box([2, 0], [2, 3]), box([0, 0], [2, 3])]],
    ["columns", [4, 4], [0, 1, 2, 3].map((i) => box([0, i], [4, 1]))],
    [
      "a pinwheel, which no cut along an axis makes",
      [3, 3],
      [
        box([0, 0], [1, 2]),
        box([0, 2], [2, 1]),
        box([2, 1], [1, 2]),
        box([1, 0], [2, 1]),
        box([1, 1], [1, 1]),
      ],
    ],
    [
      "experts by ranks",
      [4, 2, 2],
      [0, 1, 2, 3].flatMap((e) => [0, 1].map((r) => box([e, r, 0], [1, 1, 2]))),
    ],
    ["a scalar", [], [box([], [])]],
    ["nothing of nothing", [0, 3], [box([0, 0], [0, 3])]],
  ])("may be %s", async (_, shape, boxes) => {
    expect(await fault(shape, boxes)).toBe("no error");
  });

  it.each<[string, number[], Box[]]>([
    ["none at all", [4], []],
    ["a hole", [4], [box([0], [1]), box([2], [2])]],
    ["an overlap that makes up for a hole", [4], [box([0], [2]), box([1], [2])]],
    ["one doubled, one lost", [2, 2], [box([0, 0], [1, 2]), box([0, 0], [1, 2])]],
    ["one behind the end", [4], [box([0], [2]), box([3], [2])]],
    ["one of another rank", [2, 2], [box([0], [4])]],
    ["a scalar twice", [], [box([], []), box([], [])]],
    ["an overlap far apart in the list", [9], [box([0], [5]), box([5], [2]), box([4], [1]), box([8], [1])]],
  ])("may not be %s", async (_, shape, boxes) => {
    expect(await fault(shape, boxes)).toBe("SPAN_INVALID");
  });

  it("are no bomb", async () => {
    const many = Array.from({ length: 20_000 }, (_, i) => box([0, i], [1, 1]));
    expect(await fault([1, 20_000], many)).toBe("LIMIT_EXCEEDED");
  });
});
