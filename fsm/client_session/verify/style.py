"""The style sheet of the report."""

STYLE = """\
:root { color-scheme: light dark; --ink: #24292f; --soft: #57606a; --line: #d0d7de; --paper: #ffffff; --wash: #f6f8fa;
  --foreground: #1d7a4b; --background: #2459a8; --expired: #a4501c; --bad: #cf222e; --good: #1d7a4b; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #9ea7b3; --line: #30363d; --paper: #0d1117; --wash: #161b22;
    --foreground: #4cc38a; --background: #7aaef5; --expired: #e8915b; --bad: #ff7b72; --good: #4cc38a; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, "Liberation Sans", sans-serif; }
main { max-width: 70rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .25rem; }
h2 { font-size: 1.25rem; margin: 3rem 0 .75rem; }
p.lead { color: var(--soft); margin: 0 0 1.25rem; max-width: 48rem; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(11.5rem, 45%), 1fr)); gap: .75rem;
  margin: 0; }
.facts div { background: var(--wash); border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .9rem; }
.facts dt { color: var(--soft); font-size: .8rem; }
.facts dd { margin: 0; font-size: 1.2rem; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.good { color: var(--good); } .bad { color: var(--bad); }
figure { margin: 0; overflow-x: auto; }
figure svg { max-width: 100%; height: auto; display: block; margin: 0 auto; }
table { border-collapse: collapse; width: 100%; font-size: .925rem; }
th { text-align: left; color: var(--soft); font-weight: 600; font-size: .8rem; }
th, td { padding: .45rem .9rem .45rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.count, th.count { text-align: right; font-variant-numeric: tabular-nums; padding-right: 0; white-space: nowrap; }
.state { font-weight: 600; white-space: nowrap; }
.foreground { color: var(--foreground); } .background { color: var(--background); } .expired { color: var(--expired); }
.why { color: var(--soft); }
.samples { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(31rem, 100%), 1fr)); gap: 1.75rem 1.5rem; }
.samples h3 { font-size: 1rem; margin: 0 0 .5rem; font-weight: 600; }
.samples h3 .why { font-weight: 400; white-space: nowrap; }
ol.timeline { list-style: none; display: flex; flex-wrap: wrap; gap: .9rem .25rem; margin: 0; padding: 0; }
ol.timeline li { width: 7.5rem; font-size: .8rem; line-height: 1.35; }
ol.timeline .gap { color: var(--soft); font-variant-numeric: tabular-nums; }
ol.timeline .bar { height: .5rem; margin: .2rem 0 .3rem; background: currentColor; border-radius: .25rem; }
ol.timeline .bar.pending { opacity: .3; }
ol.timeline .input { font-weight: 600; color: var(--ink); }
ol.timeline li.here .input::after { content: " \u25c2"; color: var(--bad); }
ol.timeline .session { color: var(--soft); }
pre { background: var(--wash); border: 1px solid var(--line); border-radius: .5rem; padding: .75rem 1rem;
  overflow-x: auto; font-size: .85rem; }
@media (max-width: 44rem) {
  main { padding-top: 1.25rem; }
  table.stack thead { display: none; }
  table.stack tr { display: block; padding: .6rem 0; border-bottom: 1px solid var(--line); }
  table.stack td { display: block; border: 0; padding: 0; text-align: left; }
  table.stack td.count::before { content: "\u00d7 "; }
  ol.timeline li { width: 7.2rem; }
}
"""
