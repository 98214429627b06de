/** How long each stage takes, on one axis in one unit, beside what it may take. */

import { $, make, mark, say } from "/static/dom.js";
import { ms } from "/static/format.js";

const DECADES = 4; // the axis is logarithmic: a search of 0.1 ms and a painting of 700 are both read

export function latency() {
  const rows = new Map();
  const list = make("table", { class: "latency-table" });
  const empty = make("p", { class: "empty" }, "The first answers tell how long each stage takes.");
  $("latency-body").append(empty, list);
  return {
    state({ latency: stages, ended }) {
      if (ended) say(empty, "No answer of this session has its times.");
      empty.hidden = stages.length > 0;
      const most = Math.max(1, ...stages.flatMap((s) => [s.p99_ms, s.budget_ms ?? 0]));
      const top = 10 ** Math.ceil(Math.log10(most));
      const at = (value) => `${100 * Math.min(1, Math.max(0, 1 + Math.log10(Math.max(value, 1e-9) / top) / DECADES))}%`;
      for (const stage of stages) {
        if (!rows.has(stage.stage)) rows.set(stage.stage, addRow(list, stage.stage));
        show(rows.get(stage.stage), stage, at);
      }
    },
  };
}

function addRow(list, name) {
  const [span, p50, p95, p99, budget] = ["span", "p50", "p95", "p99", "budget"].map((kind) => make("i", { class: kind }));
  const cells = ["p50", "p95", "p99", "budget"].map(() => make("td", { class: "number" }));
  const over = make("td", { class: "over" });
  const root = make(
    "tr", {}, make("th", { scope: "row" }, name.replaceAll("_", " ")),
    make("td", { class: "axis", "aria-hidden": "true" }, make("div", {}, span, p50, p95, p99, budget)), ...cells, over,
  );
  list.append(root);
  return { root, span, p50, p95, p99, budget, cells, over };
}

function show(row, { n, p50_ms, p95_ms, p99_ms, budget_ms, over }, at) {
  [p50_ms, p95_ms, p99_ms].forEach((value, i) => say(row.cells[i], ms(value)));
  say(row.cells[3], budget_ms == null ? "" : `≤ ${ms(budget_ms)}`);
  row.p50.style.left = at(p50_ms);
  row.p95.style.left = at(p95_ms);
  row.p99.style.left = at(p99_ms);
  row.span.style.left = at(p50_ms);
  row.span.style.right = `calc(100% - ${at(p99_ms)})`;
  row.budget.hidden = budget_ms == null;
  if (budget_ms != null) row.budget.style.left = at(budget_ms);
  mark(row.root, "data-level", over > 0 ? "warn" : null);
  say(row.over, over > 0 ? `▲ ${over} over` : "");
  mark(row.root, "title", `${n} answers`);
}
