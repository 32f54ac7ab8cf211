/** Tables of the page outside a verification: problems, and the differences of two checkpoints. */
import { formatCount, formatMeasure, formatQuantity } from "../core/figures.ts";
import type { DiffReport } from "../index.ts";
import { type Markup, markup } from "./markup.ts";
import { type Problem, selectGravest } from "./problems.ts";

/** Browsers become slow with more rows. */
export const MAX_ROWS = 5000;

export const TONE_OF = { note: "soft", warning: "open", error: "bad", danger: "bad" } as const;

export function problemSection(problems: readonly Problem[]): Markup {
  if (problems.length === 0) return markup`<h2>Findings</h2><p>There are no findings.</p>`;
  const { shown, leftOut } = selectGravest(problems, MAX_ROWS);
  const rows = shown.map(({ rule, severity, message, file, tensor, offset }) => {
    const place = [file, tensor].filter((part) => part !== null && part !== "");
    return markup`<tr><td class="${TONE_OF[severity]}">${severity}</td><td><code class="rule">${rule}</code></td><td>${message}</td><td>${place.map((part) => markup`<code>${part}</code> `)}${offset === null ? "" : `byte ${formatCount(offset)}`}</td></tr>\n`;
  });
  return markup`<h2>Findings</h2>
${longTable(["severity", "rule", "message", "location"], rows)}
${leftOut === 0 ? null : markup`<p class="note">${formatQuantity(leftOut, "more problem")} not shown on this page; none is more severe than these.</p>`}`;
}

export function differenceSections({ tensors, config, sidecars }: DiffReport): readonly Markup[] {
  const sorted = [...tensors.filter(({ equal }) => !equal), ...tensors.filter(({ equal }) => equal)];
  const rows = sorted.slice(0, MAX_ROWS).map(({ role, layer, a, b, equal, maxAbs, relL2, ulp, error }) => {
    const outcome = equal
      ? "equal"
      : (error ?? (a === null ? "only in B" : b === null ? "only in A" : "differs"));
    return markup`<tr><td>${role}</td>${numberCell("layer", layer)}<td>${sidesText(a, b)}</td>${numberCell("max abs", maxAbs)}${numberCell("relative L2", relL2)}${numberCell("ulp", ulp)}<td class="${equal ? "good" : "bad"}">${outcome}</td></tr>\n`;
  });
  const head = ["role", "layer", "tensor", "max abs", "relative L2", "ulp", "outcome"];
  const settings = config.map(
    ({ key, a, b }) =>
      markup`<tr><td><code>${key}</code></td><td><code>${JSON.stringify(a) ?? ""}</code></td><td><code>${JSON.stringify(b) ?? ""}</code></td></tr>\n`,
  );
  const files = sidecars.map(({ path, a, b, lines }) => {
    const how = a === null ? "only in B" : b === null ? "only in A" : "differs";
    const from = lines === undefined ? "" : `, from line ${lines.from}`;
    return markup`<li><code>${path}</code> ${how}${from}${lines === undefined ? null : linesText(lines)}</li>\n`;
  });
  return [
    markup`<h2>Tensors</h2>\n${longTable(head, rows, [1, 3, 4, 5])}`,
    ...(settings.length === 0 ? [] : [markup`<h2>Settings</h2>\n${htmlTable(["key", "A", "B"], settings)}`]),
    ...(files.length === 0 ? [] : [markup`<h2>Side files</h2>\n<ul>${files}</ul>`]),
  ];
}

function linesText({ a, b }: { readonly a: readonly string[]; readonly b: readonly string[] }): Markup {
  const line = (mark: string, tone: string) => (text: string) =>
    markup`<br><code class="${tone}">${`${mark} ${text}`}</code>`;
  return markup`${a.map(line("−", "bad"))}${b.map(line("+", "good"))}`;
}

/** Both names if they differ, else one. */
export function sidesText(a: string | null, b: string | null): Markup {
  if (a === b || b === null) return markup`<code>${a ?? ""}</code>`;
  return a === null ? markup`<code>${b}</code>` : markup`<code>${a}</code><br><code>${b}</code>`;
}

/** A cell with a number. On a narrow screen the table has no head, and the cell shows `label`. */
export function numberCell(label: string, value: number | null): Markup {
  return markup`<td class="n" data-of="${label}">${value === null ? "" : formatMeasure(value)}</td>`;
}

/** @param numeric columns whose heads are right-aligned */
export function htmlTable(
  head: readonly string[],
  rows: readonly Markup[],
  numeric: readonly number[] = [],
  kind = "stack",
): Markup {
  const heads = head.map((title, i) =>
    numeric.includes(i) ? markup`<th class="n">${title}</th>` : markup`<th>${title}</th>`,
  );
  return markup`<div class="wide"><table class="${kind}"><thead><tr>${heads}</tr></thead><tbody>
${rows}</tbody></table></div>`;
}

/** A table that can be searched if it has more than 12 rows. */
export const longTable = (
  head: readonly string[],
  rows: readonly Markup[],
  numeric: readonly number[] = [],
): Markup => htmlTable(head, rows, numeric, rows.length > 12 ? "stack long" : "stack");
