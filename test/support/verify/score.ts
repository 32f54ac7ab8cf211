/** What a suite of faults and clean pairs came to, in one form for all of them, printed after its last test. */
import { afterAll, expect } from "vitest";
import type { Verdict, VerifyReport } from "../../../src/verify/report.ts";
import { metricsWith } from "../rungs.ts";

export interface Score {
  planted: number;
  caught: number;
  /** faults that lie in a layer; a refusal and a setting name a code or a key instead */
  placed: number;
  localised: number;
  /** at a door of the layer too, which the logits rung found by running it */
  byLogits: number;
  clean: number;
  falseAlarms: number;
  /** what is refused, as documented, and of which sources */
  readonly refused: Map<string, readonly string[]>;
  /** each fault that was run, with the cosine of its logits to the source's: all that a looser check looks at */
  readonly seen: { fault: string; verdict: Verdict; layer: number | undefined; cosine: number }[];
}

/** @param title of the suite; a fault is called as its test is, after the first words of what that stands in */
export function keepScore(title: string): Score {
  const score: Score = {
    ...{ planted: 0, caught: 0, placed: 0, localised: 0, byLogits: 0, clean: 0, falseAlarms: 0 },
    ...{ refused: new Map(), seen: [] },
  };
  afterAll(() => print(title, score));
  return score;
}

/** Counts a clean pair and its verdict, which must be the one that is due. */
export function expectClean(score: Score, { verdict, findings }: VerifyReport, due: Verdict): void {
  score.clean++;
  if (verdict !== due) score.falseAlarms++;
  expect({ verdict, findings }).toMatchObject({ verdict: due });
}

/** Counts a fault in a layer, which must be different, at that layer. */
export function expectNamed(score: Score, report: VerifyReport, layer: number): void {
  score.planted++;
  score.placed++;
  const { verdict, firstDivergence, rungs } = report;
  if (rungs.some(({ rung }) => rung === "logits")) {
    const { cosine } = metricsWith(report, "logits", "cosine");
    const [suite, ...test] = expect.getState().currentTestName!.split(" > ");
    const fault = [suite!.split(":")[0], ...test].join(": ");
    score.seen.push({ fault, verdict, layer: firstDivergence?.layer, cosine });
  }
  expect(verdict).toBe("different");
  score.caught++;
  expect(firstDivergence?.layer).toBe(layer);
  score.localised++;
  if (firstDivergence?.door !== undefined) score.byLogits++;
}

function print(title: string, score: Score): void {
  const { planted, caught, placed, localised, byLogits, clean, falseAlarms, refused, seen } = score;
  const lines = [...seen]
    .sort((x, y) => y.cosine - x.cosine)
    .map(
      ({ fault, verdict, layer, cosine }) => `${cosine.toFixed(6)}  ${verdict} at layer ${layer}  ${fault}`,
    );
  for (const [kind, names] of refused) lines.push(`${kind}: ${names.join(", ")}`);
  if (seen.length > 0) {
    const blind = seen.filter(({ cosine }) => cosine > 0.99).length;
    lines.push(`of ${seen.length} faults, a cosine of logits above 0.99 would have passed ${blind}`);
  }
  const faults =
    planted === 0
      ? ""
      : `faults caught ${caught}/${planted}; at the right layer ${localised}/${placed}, at a door of it too ${byLogits}; `;
  console.log([...lines, `${title}: ${faults}false alarms ${falseAlarms}/${clean}`].join("\n"));
}
