/** Wrong tables of uses: faults that lie in code and in no byte. */
import { vi } from "vitest";
import type { ModelWithScales } from "../../../src/checkpoint/load.ts";
import type { Native, OutputRows, Use } from "../../../src/families/forward.ts";
import type { Dims } from "../../../src/families/structure.ts";
import { PairedReading } from "../../../src/verify/pairs/paired-reading.ts";

/** The same checkpoint, run by other uses. */
export function runBy(side: ModelWithScales, change: (native: Native) => Native): ModelWithScales {
  const { family, dialect } = side;
  const { forward } = family;
  const native = forward.natives.find((one) => one.dialect === dialect.id)!;
  return { ...side, family: { ...family, forward: { ...forward, natives: [change(native)] } } };
}

/** The uses of a layer kind, with the feeds of one tensor changed. */
export const refed =
  (kind: string, name: string, feeds: (feeds: readonly OutputRows[], d: Dims) => readonly OutputRows[]) =>
  (native: Native): Native => {
    const uses: readonly Use[] = native.uses[kind]!.map((use) =>
      use.name === name ? { ...use, outputs: (d, at) => feeds(use.outputs(d, at), d) } : use,
    );
    return { ...native, uses: { ...native.uses, [kind]: uses } };
  };

/** Two stored tensors of a layer taken for one another. */
export const renamed =
  (kind: string, a: string, b: string) =>
  (native: Native): Native => {
    const other: Readonly<Record<string, string>> = { [a]: b, [b]: a };
    const uses = native.uses[kind]!.map((use) => ({ ...use, name: other[use.name] ?? use.name }));
    return { ...native, uses: { ...native.uses, [kind]: uses } };
  };

export const exchange = (a: string, b: string) => (feeds: readonly OutputRows[]) =>
  feeds.map((feed) => ({ ...feed, to: feed.to === a ? b : feed.to === b ? a : feed.to }));

/** The two halves of what feeds a stream exchanged: groups, heads. */
export const halves = (stream: string) => (feeds: readonly OutputRows[]) =>
  feeds.flatMap((feed) => {
    if (feed.to !== stream) return [feed];
    const count = feed.count / 2;
    return [
      { ...feed, count, at: feed.at + count },
      { ...feed, count, from: feed.from + count },
    ];
  });

export const moved = (stream: string, by: number) => (feeds: readonly OutputRows[]) =>
  feeds.map((feed) => (feed.to === stream ? { ...feed, from: feed.from + by } : feed));

/** Until it is disposed, every product of both sides is computed: none is taken for one that the other side has computed. */
export function unpaired(): Disposable {
  return vi.spyOn(PairedReading.prototype, "stage").mockReturnValue(undefined);
}
