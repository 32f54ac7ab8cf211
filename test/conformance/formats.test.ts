/** What every format must do, by one suite: a new one is admitted by a line in `formats/index.ts`. */
import { expect, it } from "vitest";
import { formats } from "../../formats/index.ts";
import { formatConformance } from "../../src/conformance/formats.ts";
import { hostileTo } from "../support/hostile.ts";

/**
 * Bytes of one tensor that opening may touch. An archive of torch.save is described at its end and begins with what
 * is described: 4 KiB of each are read at once. All others touch none.
 */
const TOUCHED: Readonly<Record<string, number>> = { nemo2: 8192, bridge: 8192, megatron: 8192 };

const hostile = await Promise.all(formats.map(({ id }) => hostileTo(id)));

it.each(formats.map(({ id }, i) => [id, hostile[i]!] as const))("%s has hostile files", (_, cases) => {
  expect(cases.length).toBeGreaterThan(0);
});

for (const [i, format] of formats.entries())
  formatConformance(format, { hostile: hostile[i]!, touchedBytes: TOUCHED[format.id] ?? 0 });
