/** Style of the page: one column of text, local fonts, light or dark by the reader's setting, rules for print. */
export const STYLE = `
:root { color-scheme: light dark; --paper: #fefefc; --ink: #1d1e20; --soft: #5f6368; --rule: #dcdcd6; --wash: #f4f4f0;
  --line: #2f5d8a; --mark: #b3541e; --good: #2c6e49; --bad: #a4262c; --open: #85610f;
  --serif: "Iowan Old Style", "Palatino Linotype", Palatino, "TeX Gyre Pagella", Georgia, "DejaVu Serif", serif;
  --mono: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace }
@media (prefers-color-scheme: dark) { :root { --paper: #16181b; --ink: #dddeda; --soft: #9a9fa5; --rule: #33373c;
  --wash: #1e2125; --line: #7fb0de; --mark: #e39a63; --good: #7cc49b; --bad: #ef8a86; --open: #d9b45a } }
* { box-sizing: border-box }
html { -webkit-text-size-adjust: 100% }
body { margin: 0 auto; padding: 3.5rem 1.25rem 5rem; max-width: 50rem; background: var(--paper); color: var(--ink);
  font: 1.0625rem/1.55 var(--serif); font-variant-numeric: tabular-nums lining-nums }
header { border-bottom: 1px solid var(--ink); padding-bottom: 1.75rem }
.over { margin: 0; color: var(--soft); font-variant-caps: all-small-caps; letter-spacing: .08em }
h1 { margin: .2rem 0 .4rem; font-size: 2.4rem; line-height: 1.15; font-weight: 500; letter-spacing: -.01em }
h2 { margin: 3rem 0 .6rem; font-size: 1.3rem; font-weight: 600 }
h3 { margin: 1.2rem 0 .3rem; font-size: 1.05rem; font-weight: 600 }
h2 + p { margin-top: 0 }
p { margin: .6rem 0; max-width: 38rem; text-wrap: pretty }
.lead { margin: 0; font-size: 1.15rem }
.note, figcaption, summary, footer { color: var(--soft); font-size: .92rem }
.good { color: var(--good) } .bad { color: var(--bad) } .open { color: var(--open) } .soft { color: var(--soft) }
code { font: .8125rem/1.5 var(--mono); overflow-wrap: anywhere; font-variant-ligatures: none }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.5rem; margin: 1.5rem 0 0; font-size: 1rem }
dt { color: var(--soft) } dd { margin: 0; overflow-wrap: anywhere }
aside { margin: 2rem 0 0; padding: .1rem 0 .1rem 1.1rem; border-left: 3px solid var(--bad) }
aside ol { margin: .4rem 0; padding-left: 1.3rem } aside p { margin: .3rem 0 }
.wide { overflow-x: auto; margin: .8rem 0 }
table { border-collapse: collapse; width: 100%; font-size: .95rem }
th { text-align: left; font-weight: 400; color: var(--soft); border-bottom: 1px solid var(--ink); padding: .25rem .9rem .25rem 0;
  white-space: nowrap; vertical-align: bottom }
td { padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--rule); vertical-align: top }
th:last-child, td:last-child { padding-right: 0 }
.n { text-align: right; white-space: nowrap }
li { overflow-wrap: anywhere } .rule { white-space: nowrap }
td q { quotes: none; white-space: pre-wrap }
td q b { font-weight: 400; background: var(--wash); border-bottom: 2px solid var(--mark); padding: 0 .1em }
figure { margin: 1rem 0 }
svg { display: block; width: 100%; min-width: 30rem; height: auto; font: 12px var(--serif) }
svg text { fill: var(--soft) } svg .grid { stroke: var(--rule); stroke-width: 1 } svg .axis { stroke: var(--ink); stroke-width: 1 }
svg .drift { fill: none; stroke: var(--line); stroke-width: 1.5 } svg .dot, svg .bar { fill: var(--line) }
svg .local { fill: var(--paper); stroke: var(--mark); stroke-width: 1.5 } svg .over-limit { fill: var(--bad); stroke: var(--bad) }
svg .limit { stroke: var(--bad); stroke-width: 1; stroke-dasharray: 5 4 } svg .limit-text { fill: var(--bad) }
svg .mean { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 1 4; stroke-linecap: round }
.find { display: flex; gap: .8rem; align-items: baseline; margin: .8rem 0; color: var(--soft); font-size: .92rem }
.find input { flex: 0 1 22rem; min-width: 0; font: inherit; color: inherit; color: var(--ink); background: transparent; border: 0;
  border-bottom: 1px solid var(--soft); padding: .2rem 0; border-radius: 0 }
.find input:focus { outline: 0; border-bottom: 2px solid var(--line); padding-bottom: calc(.2rem - 1px) }
footer { margin-top: 4rem; padding-top: .8rem; border-top: 1px solid var(--rule) }
summary { cursor: pointer }
@media screen and (max-width: 36rem) {
  body { padding-top: 2rem; font-size: 1rem } h1 { font-size: 1.9rem }
  dl { grid-template-columns: 1fr; gap: 0 } dd { margin-bottom: .55rem }
  svg { min-width: 0; font-size: 18px }
  .stack thead { display: none } .stack tr { display: block; border-bottom: 1px solid var(--rule); padding: .45rem 0 }
  .stack td { display: block; border: 0; padding: .05rem 0 } .stack .n { text-align: left }
  .stack .n:empty { display: none } .stack [data-of]::before { content: attr(data-of) " "; color: var(--soft) }
}
@media print {
  @page { margin: 18mm 16mm }
  :root { color-scheme: light; --paper: #fff; --ink: #000; --soft: #444; --rule: #bbb; --wash: #eee; --line: #1d4a77; --mark: #8f3d10;
    --good: #1d5636; --bad: #8c1b20; --open: #66490a }
  html { font-size: 9pt } body { padding: 0; max-width: none; line-height: 1.4 } p { max-width: 46rem }
  h2 { margin-top: 2rem; break-after: avoid } h2 + p { break-after: avoid } tr, figure, aside { break-inside: avoid }
  td { padding-top: .15rem; padding-bottom: .15rem } tr[hidden] { display: table-row } footer { margin-top: 2rem }
  .find { display: none } .wide { overflow: visible } svg { min-width: 0 }
  details::details-content { content-visibility: visible; block-size: auto } thead { display: table-header-group }
}
`;
