/** How often the answer was right so far: with its interval, beside what chance would give. */

import { $, batched, make, makeSvg } from "/static/dom.js";
import { interval, percent, rate, count } from "/static/format.js";

const WIDTH = 440;
const HEIGHT = 150;
const LEFT = 34;
const RIGHT = 384; // right of it the names of the lines
const BOTTOM = 128;
const TOP = 8;

export function accuracy() {
  let hello = null;
  let state = null;
  let shown = "";
  const render = batched(() => {
    const known = state?.accuracy ?? null;
    const key = JSON.stringify([known, hello?.chance, hello?.session.blind, hello?.n_repeats]);
    if (key === shown) return;
    shown = key;
    $("accuracy-n").textContent = known ? count(known.n, "answer") : "";
    $("accuracy-body").replaceChildren(...(known?.n ? parts(known, hello) : [empty(hello)]));
  });
  render();
  return {
    hello(message) {
      hello = message;
      render();
    },
    state(message) {
      state = message;
      render();
    },
  };
}

function empty(hello) {
  const why = hello?.session.blind
    ? "Hidden: in a blind session nobody learns what is right before it is over."
    : "No answer can be called right or wrong yet: that takes trials whose image is known.";
  return make("p", { class: "empty" }, why);
}

function parts(known, hello) {
  const chance = hello?.chance ?? null;
  return [
    make("div", { class: "rates" }, one("top-1", known.top1, chance?.top1), one("top-5", known.top5, chance?.top5)),
    chart(known.by_repeats ?? [], chance, hello?.n_repeats ?? 1),
    calibration(known.calibration),
  ];
}

function one(name, known, chance) {
  return make(
    "div", { class: "rate" },
    make("span", { class: "dim" }, name), make("b", { class: "number" }, rate(known.rate)),
    make("span", { class: "dim number" }, interval(known)),
    make("span", { class: "dim number" }, chance == null ? "" : `chance ${rate(chance)}`),
  );
}

function calibration(known) {
  if (!known?.n) return make("p", { class: "told" }, "Calibration: not known yet.");
  const words = `Calibration: says ${percent(known.mean_confidence)} sure on average, off by ${percent(known.ece)} (ECE, ${count(known.n, "answer")}).`;
  return make("p", { class: "told number" }, words);
}

/** Both rates by repeats, with intervals; chance is drawn, as without it a rate says nothing. */
function chart(byRepeats, chance, nRepeats) {
  const svg = makeSvg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "chart", role: "img" });
  const n = Math.max(nRepeats, 1, ...byRepeats.map(({ repeats }) => repeats));
  const x = (repeats) => LEFT + ((repeats - 0.5) / n) * (RIGHT - LEFT);
  const y = (value) => BOTTOM - value * (BOTTOM - TOP);
  const text = (where, content, extra = {}) => makeSvg("text", { ...where, ...extra }, content);
  svg.append(makeSvg("title", {}, byRepeats.map((b) => `${b.repeats} repeats: top-1 ${rate(b.top1.rate)}, top-5 ${rate(b.top5.rate)}, n ${b.n}`).join("; ")));
  for (const value of [0, 0.5, 1]) {
    svg.append(makeSvg("line", { class: "grid", x1: LEFT, x2: RIGHT, y1: y(value), y2: y(value) }));
    svg.append(text({ x: LEFT - 5, y: y(value) + 4 }, `${100 * value}`, { "text-anchor": "end" }));
  }
  const step = Math.ceil(n / 10);
  for (let repeats = 1; repeats <= n; repeats += step) svg.append(text({ x: x(repeats), y: BOTTOM + 16 }, `${repeats}`, { "text-anchor": "middle" }));
  svg.append(text({ x: RIGHT + 4, y: BOTTOM + 16 }, "repeats"));
  for (const [name, kind] of [["top5", "second"], ["top1", "first"]]) {
    if (chance) svg.append(makeSvg("line", { class: `chance ${kind}`, x1: LEFT, x2: RIGHT, y1: y(chance[name]), y2: y(chance[name]) }));
    if (!byRepeats.length) continue;
    const shift = kind === "first" ? -2.5 : 2.5;
    const points = byRepeats.map((b) => `${x(b.repeats) + shift},${y(b[name].rate)}`).join(" ");
    svg.append(makeSvg("polyline", { class: `curve ${kind}`, points }));
    for (const b of byRepeats) {
      const at = x(b.repeats) + shift;
      svg.append(makeSvg("line", { class: `whisker ${kind}`, x1: at, x2: at, y1: y(b[name].low), y2: y(b[name].high) }));
      if (kind === "first") svg.append(makeSvg("circle", { class: `dot ${kind}`, cx: at, cy: y(b[name].rate), r: 3.5 }));
      else svg.append(makeSvg("rect", { class: `dot ${kind}`, x: at - 3, y: y(b[name].rate) - 3, width: 6, height: 6 }));
    }
  }
  labels(svg, byRepeats.at(-1), chance, y, text);
  return svg;
}

/** What the lines are, at their right ends, apart from each other. */
function labels(svg, last, chance, y, text) {
  const names = [];
  if (last) names.push(["top-5", y(last.top5.rate), "second"], ["top-1", y(last.top1.rate), "first"]);
  if (chance) names.push(["chance", y((chance.top1 + chance.top5) / 2), "dimmed"]);
  names.sort((a, b) => a[1] - b[1]);
  const places = names.map(([, at]) => at + 4);
  let next = BOTTOM + 15; // from the lowest up, so that none comes to lie on the axis
  for (let i = names.length - 1; i >= 0; i--) next = places[i] = Math.min(places[i], next - 13);
  next = -3; // and down again, so that none is cut off
  for (let i = 0; i < names.length; i++) next = places[i] = Math.max(places[i], next + 13);
  names.forEach(([name, , kind], i) => svg.append(text({ x: RIGHT + 4, y: places[i] }, name, { class: kind })));
}
