/** The sections of a verification: rungs, findings, layers, positions, tensors, controls, limits, certificate. */
import { formatCount, formatQuantity } from "../core/figures.ts";
import type { ComparedTensor, Finding, LogitsMetrics, RungReport, VerifyReport } from "../index.ts";
import { chartOf } from "./chart.ts";
import { errorSection } from "./html-errors.ts";
import { htmlTable, longTable, MAX_ROWS, numberCell, sidesText, TONE_OF } from "./html-tables.ts";
import { type Markup, markup } from "./markup.ts";
import { certifiedText, comparedLogits, limitTexts, measureTexts } from "./measures.ts";
import { divergenceText } from "./problems.ts";
import { TONES } from "./subject.ts";

const QUESTIONS = {
  cover: "Is every element present exactly once, and are the settings the same?",
  bytes: "Is every stored value equal bit by bit, or the correct rounding?",
  logits: "Do both checkpoints, each run with its own tensors, agree at every door of every layer?",
  reference: "Do the logits match logits that other software recorded?",
} as const;

export function divergenceAside({ firstDivergence: first }: VerifyReport): Markup | null {
  if (first === null) return null;
  const text = divergenceText(first);
  const suspects = first.tensors.slice(0, 12).map((tensor) => markup`<li><code>${tensor}</code></li>`);
  return markup`<aside><p>${`${text[0]!.toUpperCase()}${text.slice(1)}`}${suspects.length < 2 ? "." : ", the most likely first."}</p><ol>${suspects}</ol></aside>`;
}

export function verificationSections(report: VerifyReport): readonly (Markup | null)[] {
  const logits = comparedLogits(report);
  return [
    rungSection(report.rungs),
    findingSection(report.findingDetails),
    logits === undefined ? null : layerSection(logits),
    logits === undefined ? null : positionSection(logits.positions, report),
    report.tensors === undefined ? null : errorSection(report.tensors, report.rungs),
    report.tensors === undefined ? null : tensorSection(report.tensors),
    logits === undefined ? null : controlSection(logits),
    limitSection(limitTexts(report)),
    certificateSection(report.certificate),
  ];
}

function rungSection(rungs: readonly RungReport[]): Markup {
  const rows = rungs.map(
    (rung) =>
      markup`<tr><td>${rung.rung}</td><td class="${TONES[rung.verdict]}">${rung.verdict}</td><td>${QUESTIONS[rung.rung]}<br><span class="soft">${measureTexts(rung).join(", ")}</span></td></tr>\n`,
  );
  return markup`<h2>Rungs</h2>
<p>A rung is one comparison. The verdict is the worst verdict of all rungs; cheap rungs run first.</p>
${htmlTable(["rung", "verdict", "question and measures"], rows)}`;
}

/** Differences first, because `strict` makes them errors. */
function findingSection(findings: readonly Finding[]): Markup | null {
  if (findings.length === 0) return null;
  const remarks = findings.filter(({ severity }) => severity === "note");
  const differences = findings.filter(({ severity }) => severity !== "note");
  return markup`<h2>Findings</h2>${findingList("Differences", differences)}${findingList("Remarks", remarks)}`;
}

function findingList(title: string, findings: readonly Finding[]): Markup | null {
  if (findings.length === 0) return null;
  const items = findings.slice(0, MAX_ROWS).map(({ rule, severity, message }) => {
    return markup`<li><code class="rule ${TONE_OF[severity]}">${rule}</code> ${message}</li>\n`;
  });
  const left = findings.length - items.length;
  return markup`<h3>${title}</h3><ul>${items}</ul>${left === 0 ? null : markup`<p class="note">${formatQuantity(left, "more finding")} not shown on this page.</p>`}`;
}

/** Letters of the layer pattern. */
const LETTERS: Readonly<Record<string, string>> = { mamba: "M", attention: "*", mlp: "-", moe: "E" };

/** More letters do not fit side by side. */
const MAX_LETTERS = 50;

function layerSection({ layers, wiring }: LogitsMetrics): Markup | null {
  if (layers.length === 0) return null;
  const drift = layers.map(({ driftRelL2 }) => driftRelL2);
  const local = layers.map(({ localRelL2 }) => localRelL2);
  const rows = layers.map(
    ({ layer, kind, driftRelL2, localRelL2 }) =>
      markup`<tr>${numberCell("layer", layer)}<td>${kind}</td>${numberCell("drift", driftRelL2)}${numberCell("own error", localRelL2)}</tr>\n`,
  );
  const unchanged = [...drift, ...local].every((value) => value === 0);
  const lettered = layers.length <= MAX_LETTERS;
  const labels = layers.map(({ layer, kind }) => (lettered ? (LETTERS[kind] ?? "?") : String(layer)));
  const used = [...new Set(layers.map(({ kind }) => kind))];
  const legend = used.map((kind) => `${LETTERS[kind] ?? "?"} ${kind}`).join(", ");
  const figure = markup`<figure><div class="wide">${chartOf({
    title: "Drift and own error of each layer, relative L2, logarithmic",
    axis: `layers in order of execution${lettered ? `: ${legend}` : ""}`,
    labels,
    series: [
      { as: "line", name: "drift", values: drift },
      { as: "marks", name: "own error", values: local },
    ],
    limit: { value: wiring.limit, text: "wiring limit" },
  })}</div><figcaption>Relative L2. Line and dots: drift of the hidden state, the cost of a recast, which adds up from layer to layer. Rings: the own error of a layer with equal inputs, at its worst door${wiring.limit === 0 ? "; it must be exactly 0" : ""}.</figcaption></figure>`;
  return markup`<h2>Layer by layer</h2>
${unchanged ? markup`<p>${`In all ${layers.length} layers both checkpoints gave the same bits: drift and own error are exactly 0.`}</p>` : figure}
${unchanged ? null : markup`<details><summary>The numbers</summary>${htmlTable(["layer", "kind", "drift", "own error"], rows, [0, 2, 3], "")}</details>`}`;
}

function positionSection(
  { kl, per, worst }: LogitsMetrics["positions"],
  { limits: { klP99 }, unjudged = [] }: VerifyReport,
): Markup {
  if (worst.length === 0) {
    return markup`<h2>Position by position</h2>
<p>${`At all ${formatQuantity(kl.length * per, "position")} both distributions of the next token are equal: the KL divergence is exactly 0.`}</p>`;
  }
  const chart = chartOf({
    title: "KL divergence at each position, nats, logarithmic",
    axis:
      per === 1
        ? "position in the prompt"
        : `position in the prompt; each bar is the largest of ${per} positions`,
    labels: kl.map((_, i) => String(i * per)),
    series: [{ as: "bars", name: "KL", values: kl }],
    ...(klP99 !== undefined &&
      klP99 > 0 &&
      !unjudged.includes("klP99") && { limit: { value: klP99, text: "limit of the 99th percentile" } }),
  });
  const texts = worst.some(({ text }) => text !== undefined);
  const rows = worst.map(({ position, id, kl: nats, bestA, bestB, text }) => {
    const where =
      text === undefined ? markup`${`token ${id}`}` : markup`<q>${text.before}<b>${text.token}</b></q>`;
    return markup`<tr>${numberCell("position", position)}<td>${where}</td>${numberCell("KL", nats)}<td data-of="A expects">${best(bestA, text?.bestA)}</td><td data-of="B expects"${bestA === bestB ? null : ALERT}>${best(bestB, text?.bestB)}</td></tr>\n`;
  });
  return markup`<h2>Position by position</h2>
<figure><div class="wide">${chart}</div><figcaption>KL divergence between the next-token distributions of A and B, in nats.</figcaption></figure>
<p>The positions with the largest divergence${texts ? "; the token read there is underlined" : ""}:</p>
${htmlTable(["position", "read", "KL, nats", "A expects", "B expects"], rows, [0, 2])}`;
}

const ALERT: Markup = { markup: ' class="bad"' };

function best(id: number | null, text: string | null | undefined): Markup {
  if (id === null) return markup`not a number`;
  return typeof text === "string" ? markup`<q>${text}</q>` : markup`${`token ${id}`}`;
}

const OUTCOMES = { same: "good", rounded: "good", different: "bad" } as const;

function tensorSection(tensors: readonly ComparedTensor[]): Markup {
  const differing = tensors.filter(({ outcome }) => outcome === "different");
  const others = tensors.filter(({ outcome }) => outcome !== "different");
  const rows = [...differing, ...others]
    .slice(0, MAX_ROWS)
    .map(
      ({ role, layer, a, b, dtypeA, dtypeB, outcome }) =>
        markup`<tr>${numberCell("layer", layer)}<td>${role}</td><td>${sidesText(a, b)}</td><td>${dtypeA === dtypeB ? dtypeA : `${dtypeA} → ${dtypeB}`}</td><td class="${OUTCOMES[outcome]}">${outcome}</td></tr>\n`,
    );
  const left = tensors.length - rows.length;
  return markup`<h2>Tensors</h2>
<p>${`${formatCount(others.length)} of ${formatQuantity(tensors.length, "role")} are equal bit by bit or correctly rounded${differing.length === 0 ? "." : "; the others are listed first."}`}</p>
${longTable(["layer", "role", "stored as", "type", "outcome"], rows, [0])}
${left === 0 ? null : markup`<p class="note">${formatQuantity(left, "more row")} not shown on this page.</p>`}`;
}

function controlSection({ controls }: LogitsMetrics): Markup | null {
  if (controls.length === 0) return null;
  const decided = controls.filter(({ caught }) => caught !== null);
  const caught = decided.filter((one) => one.caught).length;
  const rows = controls.map(({ layer, kind, door, mutation, caught: seen }) => {
    const outcome = seen === null ? ["soft", "void"] : seen ? ["good", "caught"] : ["bad", "missed"];
    return markup`<tr>${numberCell("layer", layer)}<td>${kind}</td><td><code class="rule">${door}</code></td><td>${mutation}</td><td class="${outcome[0]!}">${outcome[1]!}</td></tr>\n`;
  });
  const voids = controls.length - decided.length;
  return markup`<h2>Controls</h2>
<p>${`Controls are deliberate faults: parts of B were exchanged while it ran, and the comparison must detect each exchange. ${caught} of ${decided.length} were caught${voids === 0 ? "" : `; ${voids} had no effect, because the exchanged parts are equal`}.`}</p>
<details${caught === decided.length ? null : OPEN}><summary>All controls</summary>${htmlTable(["layer", "kind", "door", "exchanged parts", "outcome"], rows, [0])}</details>`;
}

const OPEN: Markup = { markup: " open" };

function limitSection(limits: readonly string[]): Markup | null {
  if (limits.length === 0) return null;
  return markup`<h2>Limits</h2><ul>${limits.map((limit) => markup`<li>${limit}</li>`)}</ul>`;
}

function certificateSection(certificate: VerifyReport["certificate"]): Markup | null {
  if (certificate === null) return null;
  const { sha256, tool, reference, signedBy } = certificate;
  return markup`<h2>Certificate</h2>
<dl><dt>digest</dt><dd><code>${sha256}</code></dd><dt>issued by</dt><dd>${tool}</dd><dt>outcome</dt><dd>${certifiedText(certificate).join(", ")}</dd><dt>other software</dt><dd>${reference ? "its recorded logits matched" : "not compared"}</dd><dt>signature</dt><dd>${signedBy === null ? "none" : markup`key <code>${signedBy}</code>`}</dd></dl>`;
}
