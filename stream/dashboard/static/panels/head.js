/** The head from above: how good each channel is. */

import { $, make, makeSvg, mark, say } from "/static/dom.js";
import { uv } from "/static/format.js";

const RADIUS = 100;
const DOT = 8.4;
const WORDS = { rms_uv: "RMS", peak_to_peak_uv: "peak to peak", line_uv: "mains" };

export function head() {
  const dots = new Map();
  let newest = null;
  let shown = "";

  const render = () => {
    if (!newest) return;
    const measure = $("head-measure").value;
    const values = newest.channels.map((channel) => channel[measure]).sort((a, b) => a - b);
    const middle = values[Math.floor(values.length / 2)] || 1;
    for (const channel of newest.channels) {
      const dot = dots.get(channel.name);
      if (!dot) continue;
      mark(dot.root, "data-level", channel.level);
      // How far from the usual channel of this head, over a factor of four either way.
      const strength = Math.min(1, Math.max(0, 0.5 + Math.log2(Math.max(channel[measure], 1e-6) / middle) / 4));
      dot.disc.style.fillOpacity = (0.08 + 0.62 * strength).toFixed(2);
      say(dot.title, told(channel, newest.line_hz));
    }
    const poor = newest.channels.filter(({ level }) => level === "warn" || level === "bad");
    const mains = newest.line_hz ? ` of ${newest.line_hz} Hz` : "";
    const usual = `median ${WORDS[measure]}${measure === "line_uv" ? mains : ""} ${uv(middle)} µV`;
    say($("head-told"), `${newest.channels.length - poor.length} of ${newest.channels.length} well · ${usual}`);
    list(poor);
  };

  const list = (poor) => {
    const order = { bad: 0, warn: 1 };
    poor.sort((a, b) => order[a.level] - order[b.level]);
    const lines = poor.map((c) => [c.level, c.name, c.word, `${uv(c.rms_uv)} µV`]);
    if (shown === JSON.stringify(lines)) return;
    shown = JSON.stringify(lines);
    $("head-list").replaceChildren(...lines.map(([level, name, word, value]) => make(
      "li", { "data-level": level }, make("i", { class: "shape" }), make("b", {}, name), make("span", {}, word), make("span", { class: "number" }, value))));
  };

  $("head-measure").addEventListener("change", render);
  return {
    hello({ channels }) {
      dots.clear();
      $("head-map").replaceChildren(drawn(channels, dots));
      render();
    },
    quality(message) {
      newest = message;
      render();
    },
  };
}

function told({ name, word, rms_uv, peak_to_peak_uv, line_uv }, lineHz) {
  return `${name}: ${word} · RMS ${uv(rms_uv)} µV · peak to peak ${uv(peak_to_peak_uv)} µV · mains${lineHz ? ` (${lineHz} Hz)` : ""} ${uv(line_uv)} µV`;
}

/** The outline, and a disc for each channel; those without a position stand in a row below. */
function drawn(channels, dots) {
  const unknown = channels.filter(({ known }) => !known);
  const perRow = 10;
  const extra = Math.ceil(unknown.length / perRow) * 22;
  // Some channels lie below the rim, as TP9: there the page is wider than the head.
  const reach = (axis) => Math.max(112, ...channels.filter(({ known }) => known).map((one) => Math.abs(one[axis]) * (RADIUS - 9) + 14));
  const [side, front] = [reach("x"), reach("y") + 4];
  const svg = makeSvg("svg", { viewBox: `${-side} ${-front} ${2 * side} ${front + 112 + extra}`, role: "img", "aria-label": "Quality of each channel; the nose is at the top" });
  svg.append(makeSvg("path", { class: "outline", d: "M-12 -101 L0 -114 L12 -101" }));
  svg.append(makeSvg("circle", { class: "outline", r: RADIUS + 2 }));
  for (const ear of [-1, 1]) svg.append(makeSvg("path", { class: "outline", d: `M${ear * 101} -16 q${ear * 9} 16 0 32` }));
  const size = channels.length > 40 ? DOT : channels.length > 20 ? 11 : 14;
  for (const { name, x, y, known } of channels) {
    const at = unknown.findIndex((channel) => channel.name === name);
    const place = known ? [x * (RADIUS - 9), -y * (RADIUS - 9)] : [-99 + (at % perRow) * 22, 120 + Math.floor(at / perRow) * 22];
    const disc = makeSvg("circle", { r: size, class: "disc" });
    const title = makeSvg("title", {}, `${name}: no word of it yet`);
    const label = makeSvg("text", { y: 2, "font-size": name.length > 3 ? size * 0.62 : size * 0.74 }, name);
    const sign = makeSvg("path", { class: "sign", d: `M0 ${-size - 3.4} l3.4 5.6 h-6.8 z` });
    const root = makeSvg("g", { transform: `translate(${place[0].toFixed(1)} ${place[1].toFixed(1)})`, "data-level": "off" }, title, disc, label, sign);
    dots.set(name, { root, disc, title });
    svg.append(root);
  }
  return svg;
}
