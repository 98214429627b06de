"""The look of report.html: a page in which `str.format` fills in the parts in braces."""

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2024; --dim: #5c636b; --paper: #fbfbf9;
  --card: #ffffff; --line: #dcdcd6; --right: #2c7a4b; --note: #fdf3d8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e3; --dim: #9aa1a8; --paper: #17191c;
  --card: #1f2226; --line: #363a40; --right: #5cb583; --note: #3a3115; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 76rem; color: var(--ink);
  background: var(--paper); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.25rem 0 .5rem; }
h3 { font-size: .9rem; font-weight: 600; margin: 0 0 .5rem; }
h4 { font-size: .75rem; font-weight: 500; margin: 0 0 .15rem; color: var(--dim); }
.note { background: var(--note); padding: .6rem .9rem; border-radius: .4rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .2rem 1.2rem .2rem 0;
  border-bottom: 1px solid var(--line); }
th { font-weight: 500; white-space: nowrap; }
td { white-space: pre-wrap; overflow-wrap: anywhere; }
.dim { color: var(--dim); }
.cards { display: grid; gap: .9rem;
  grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: .7rem .8rem; border-left: .3rem solid var(--line); break-inside: avoid; }
.card.right { border-left-color: var(--right); }
.row { display: grid; grid-auto-columns: minmax(0, 1fr); grid-auto-flow: column; gap: .6rem; }
figure { margin: 0; }
figcaption { font-size: .75rem; color: var(--dim); overflow-wrap: anywhere; line-height: 1.3;
  margin-top: .2rem; }
.p { display: block; width: 100%; aspect-ratio: 1; object-fit: cover; border-radius: .3rem;
  background: var(--line) center / cover; print-color-adjust: exact;
  -webkit-print-color-adjust: exact; }
.none { background: none; border: 1px dashed var(--line); color: var(--dim); font-size: .75rem;
  line-height: 1.3; padding: .5rem; overflow: hidden; }
"""

# Whatever a stimulus is called, the page can load nothing and run nothing.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

PAGE = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{{title}}</title>
<style>{_STYLE.replace("{", "{{").replace("}", "}}")}{{styles}}</style>
</head>
<body>
<h1>{{title}}</h1>
{{subject}}
<h2>In numbers</h2>
<table>
{{numbers}}
</table>
<h2>{{heading}}</h2>
<p class="dim">{{which}}</p>
<div class="cards">
{{cards}}
</div>
</body>
</html>
"""
