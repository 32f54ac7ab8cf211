/**
 * A report as one self-contained page: no network, no font files, no library. Its content security policy allows only
 * its own style and script, so that even a mistake in escaping could not load or run anything else.
 */
import { createHash } from "node:crypto";
import { version } from "../version.ts";
import { SCRIPT } from "./html-script.ts";
import { recipeSection, shapeSearchSection } from "./html-search.ts";
import { STYLE } from "./html-style.ts";
import { differenceSections, problemSection } from "./html-tables.ts";
import { divergenceAside, verificationSections } from "./html-verification.ts";
import { type Markup, markup } from "./markup.ts";
import { problemsOf } from "./problems.ts";
import { commandOf, factsOf, headlineOf, type Subject, verificationOf } from "./subject.ts";

export function htmlText(subject: Subject): string {
  const { word, meaning, tone } = headlineOf(subject);
  const command = commandOf(subject);
  const verification = verificationOf(subject);
  const search =
    subject.command === "convert" || subject.command === "recast" ? subject.report.search : undefined;
  const page = markup`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>${`${word}: isologit ${command}`}</title>
<style>${STYLE_MARKUP}</style>
</head>
<body>
<header>
<p class="over">${`isologit ${command}`}</p>
<h1 class="${tone}">${capital(word)}</h1>
<p class="lead">${capital(meaning)}.</p>
<dl>
${factsOf(subject).map(([label, value]) => markup`<dt>${label}</dt><dd>${valueText(value)}</dd>\n`)}</dl>
</header>
<main>
${verification === null ? null : divergenceAside(verification)}
${search === undefined ? null : recipeSection(search)}
${subject.command === "verify" && subject.search !== undefined ? shapeSearchSection(subject.search) : null}
${verification === null ? otherSections(subject) : verificationSections(verification)}
</main>
<footer>${`Written by isologit ${version}.`} This page loads nothing and sends nothing.</footer>
<script>${SCRIPT_MARKUP}</script>
</body>
</html>
`;
  return page.markup;
}

function otherSections(subject: Subject): readonly Markup[] {
  if (subject.command === "diff") return differenceSections(subject.report);
  return subject.command === "stopped" ? [] : [problemSection(problemsOf(subject))];
}

/** Both are constants of this version, without text of a report. */
const STYLE_MARKUP: Markup = { markup: STYLE };
const SCRIPT_MARKUP: Markup = { markup: SCRIPT };

const hashOf = (text: string): string => `'sha256-${createHash("sha256").update(text).digest("base64")}'`;
const POLICY = `default-src 'none'; style-src ${hashOf(STYLE)}; script-src ${hashOf(SCRIPT)}; base-uri 'none'; form-action 'none'`;

const capital = (text: string): string => text[0]!.toUpperCase() + text.slice(1);

/** Digests are set in a monospaced font. */
function valueText(value: string): Markup {
  const [, digest, rest] = /^([0-9a-f]{64})(.*)$/s.exec(value) ?? [];
  return digest === undefined ? markup`${value}` : markup`<code>${digest}</code>${rest!}`;
}
