/** Charts as SVG: measures per layer or position, on a logarithmic scale with a separate line for exact zeros, or counts. */
import { formatCount, formatMeasure } from "../core/figures.ts";
import { type Markup, markup } from "./markup.ts";

/** One value per place on the axis. */
interface Series {
  readonly as: "line" | "marks" | "bars";
  readonly values: readonly number[];
  readonly name: string;
}

interface Chart {
  readonly title: string;
  readonly series: readonly Series[];
  /** text below each place; empty if there is none */
  readonly labels: readonly string[];
  readonly axis: string;
  /** the values are counts, on a linear scale */
  readonly counts?: true;
  /** values above the limit are marked */
  readonly limit?: { readonly value: number; readonly text: string };
  /** one place, marked by a vertical line */
  readonly mark?: { readonly place: number; readonly text: string };
}

const WIDTH = 640;
const LEFT = 54;
const RIGHT = 8;
/** width of a letter on a phone, where letters are larger so that they can be read in a chart that fits the screen */
const LETTER = 10.5;
const TOP = 22;
const PLOT = 190;
/** space below the smallest decade, for zeros */
const ZERO = 24;

/** Vertical position of a value; NaN and infinity are above all numbers. */
interface Scale {
  readonly ticks: readonly { readonly value: number; readonly text: string }[];
  y(value: number): number;
}

function countScale(values: readonly number[]): Scale {
  const most = Math.max(1, ...values);
  const power = 10 ** Math.floor(Math.log10(most));
  const step = Math.max(1, [0.2, 0.5, 1, 2].map((part) => part * power).find((size) => most / size <= 6)!);
  const ticks = Array.from({ length: Math.floor(most / step) }, (_, i) => (i + 1) * step);
  return {
    ticks: ticks.map((value) => ({ value, text: formatCount(value) })),
    y: (value) => TOP + (PLOT + ZERO) * (1 - value / most),
  };
}

function logScale(values: readonly number[]): Scale {
  const logs = values.filter((value) => value > 0 && Number.isFinite(value)).map(Math.log10);
  const [least, most] =
    logs.length === 0 ? [-1, 0] : [Math.floor(Math.min(...logs)), Math.ceil(Math.max(...logs))];
  const high = Math.max(most, least + 1);
  const step = Math.ceil((high - least) / 8);
  const ticks: Scale["ticks"][number][] = [];
  for (let decade = least; decade <= high; decade += step)
    ticks.push({ value: 10 ** decade, text: decadeText(decade) });
  return {
    ticks,
    y(value) {
      if (value === 0) return TOP + PLOT + ZERO;
      if (!Number.isFinite(value)) return TOP - 6;
      return TOP + PLOT * (1 - (Math.log10(value) - least) / (high - least));
    },
  };
}

export function chartOf({ title, series, labels, axis, counts, limit, mark }: Chart): Markup {
  const count = Math.max(...series.map(({ values }) => values.length));
  const bound = limit !== undefined && limit.value > 0 ? limit : undefined;
  const values = series.flatMap((one) => one.values);
  const scale = counts
    ? countScale(values)
    : logScale(bound === undefined ? values : [...values, bound.value]);
  const gap = (WIDTH - LEFT - RIGHT) / count;
  const x = (place: number) => LEFT + gap * (place + 0.5);
  const bottom = TOP + PLOT + ZERO;
  const height = bottom + 40;
  const above = (value: number) => limit !== undefined && !(value <= limit.value);
  return markup`<svg viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="${title}">
${scale.ticks.map(({ value, text }) => {
  const y = round(scale.y(value));
  return markup`<line class="grid" x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${y}" y2="${y}"/><text x="${LEFT - 8}" y="${y + 4}" text-anchor="end">${text}</text>`;
})}
<line class="axis" x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${bottom}" y2="${bottom}"/><text x="${LEFT - 8}" y="${bottom + 4}" text-anchor="end">0</text>
${series.map((one) => drawSeries(one, { x, scale, gap, above, bottom }))}
${bound === undefined ? null : limitLine(bound, scale)}
${mark === undefined ? null : markLine(x(mark.place), mark.text, bottom)}
${labelsBelow(labels, x, gap, bottom + 16)}
<text x="${(LEFT + WIDTH - RIGHT) / 2}" y="${bottom + 34}" text-anchor="middle">${axis}</text>
</svg>`;
}

interface Canvas {
  readonly x: (place: number) => number;
  readonly scale: Scale;
  readonly gap: number;
  readonly above: (value: number) => boolean;
  readonly bottom: number;
}

function drawSeries({ as, values }: Series, { x, scale, gap, above, bottom }: Canvas): Markup {
  const at = values.map((value, place) => [round(x(place)), round(scale.y(value))] as const);
  if (as === "bars") {
    const width = round(Math.max(0.75, Math.min(gap * 0.7, 14)));
    return markup`${at.map(([cx, y], i) =>
      values[i] === 0
        ? null
        : markup`<rect class="bar${above(values[i]!) ? " over-limit" : ""}" x="${round(cx - width / 2)}" y="${y}" width="${width}" height="${round(bottom - y)}"/>`,
    )}`;
  }
  const size = round(Math.max(1.2, Math.min(gap * 0.28, 3.4)));
  const kind = as === "line" ? "dot" : "local";
  const marks = at.map(
    ([cx, y], i) =>
      markup`<circle class="${kind}${as === "marks" && above(values[i]!) ? " over-limit" : ""}" cx="${cx}" cy="${y}" r="${size}"/>`,
  );
  if (as === "marks") return markup`${marks}`;
  const path = at.map(([cx, y]) => `${cx},${y}`).join(" ");
  return markup`<polyline class="drift" points="${path}"/>${marks}`;
}

function limitLine({ value, text }: NonNullable<Chart["limit"]>, scale: Scale): Markup {
  const y = round(scale.y(value));
  return markup`<line class="limit" x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${y}" y2="${y}"/><text class="limit-text" x="${WIDTH - RIGHT}" y="${y - 5}" text-anchor="end">${text} ${formatMeasure(value)}</text>`;
}

function markLine(x: number, text: string, bottom: number): Markup {
  const isRight = x > WIDTH / 2;
  return markup`<line class="limit" x1="${round(x)}" x2="${round(x)}" y1="${TOP}" y2="${bottom}"/><text class="limit-text" x="${round(x + (isRight ? -6 : 6))}" y="${TOP + 12}" text-anchor="${isRight ? "end" : "start"}">${text}</text>`;
}

/** As many labels as fit: each, every second, every fifth, every tenth, and so on. */
function labelsBelow(
  labels: readonly string[],
  x: (place: number) => number,
  gap: number,
  y: number,
): Markup {
  const widest = LETTER * Math.max(0, ...labels.map(({ length }) => length)) + 4;
  const power = 10 ** Math.max(0, Math.floor(Math.log10(widest / gap)));
  const every =
    [1, 2, 5, 10].map((step) => step * power).find((step) => step * gap >= widest) ?? labels.length;
  return markup`${labels.map((label, place) =>
    place % every === 0
      ? markup`<text x="${round(x(place))}" y="${y}" text-anchor="middle">${label}</text>`
      : null,
  )}`;
}

const round = (value: number): number => Math.round(value * 100) / 100;

const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";

function decadeText(decade: number): string {
  if (decade === 0) return "1";
  const digits = [...String(Math.abs(decade))].map((digit) => SUPERSCRIPTS[Number(digit)]).join("");
  return `10${decade < 0 ? "⁻" : ""}${digits}`;
}
