/** What lies over the traces: markers, rejected spans, gaps and the pen. */

const KEPT = 200;

export class Overlay {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.markers = []; // {at_s, text, trial}
    this.rejected = []; // [from_s, to_s]
    this.gaps = [];
  }

  add({ markers = [], rejected = [] }, gap) {
    for (const marker of markers) {
      const told = [marker.trial, marker.text].filter((one) => one != null && one !== "").join(" · ");
      this.markers.push({ ...marker, told: told.length > 22 ? `${told.slice(0, 21)}…` : told });
    }
    for (const span of rejected)
      if (!this.rejected.some(([from, to]) => from === span[0] && to === span[1])) this.rejected.push(span);
    if (gap) this.gaps.push(gap);
    for (const kept of [this.markers, this.rejected, this.gaps]) kept.splice(0, Math.max(0, kept.length - KEPT));
  }

  draw(sweep, pen_s) {
    const { context, canvas } = this;
    const { ratio, colours } = sweep;
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (!Number.isFinite(pen_s)) return;
    for (const [from, to] of this.rejected) this.#span(sweep, pen_s, from, to, colours.bad, "rejected");
    for (const [from, to] of this.gaps) this.#span(sweep, pen_s, from, to, colours.warn, "gap");
    context.font = `${11 * ratio}px system-ui, sans-serif`;
    context.textAlign = "left";
    context.textBaseline = "top";
    let free = -Infinity; // up to where a text stands already
    for (const { at_s, told } of this.markers) {
      if (at_s > pen_s || at_s <= pen_s - sweep.window_s) continue;
      const x = sweep.x(at_s);
      if (x < free - 200 * ratio) free = -Infinity; // the pen has begun again
      context.fillStyle = colours.accent;
      context.globalAlpha = 0.5;
      context.fillRect(x, 0, ratio, canvas.height);
      context.globalAlpha = 1;
      const isGoing = at_s < pen_s - 0.85 * sweep.window_s; // the pen is about to write there
      if (x < free || isGoing) continue;
      context.fillText(told, x + 4 * ratio, ratio);
      free = x + (8 + 6 * told.length) * ratio;
    }
    context.fillStyle = colours.ink;
    context.fillRect(sweep.x(pen_s), 0, 2 * ratio, canvas.height);
  }

  #span(sweep, pen_s, from_s, to_s, colour, word) {
    const from = Math.max(from_s, pen_s - sweep.window_s);
    const to = Math.min(to_s, pen_s);
    if (to <= from) return;
    const [left, right] = [sweep.x(from), sweep.x(to)];
    if (right >= left) this.#box(sweep, left, right, colour, word);
    else {
      this.#box(sweep, left, sweep.left + sweep.span, colour, word);
      this.#box(sweep, sweep.left, right, colour, "");
    }
  }

  #box({ ratio }, left, right, colour, word) {
    const { context, canvas } = this;
    context.fillStyle = colour;
    context.globalAlpha = 0.16;
    context.fillRect(left, 0, right - left, canvas.height);
    context.globalAlpha = 1;
    context.fillRect(left, canvas.height - 3 * ratio, right - left, 3 * ratio);
    context.font = `${11 * ratio}px system-ui, sans-serif`;
    context.textBaseline = "bottom";
    context.textAlign = "left";
    if (right - left > 40 * ratio) context.fillText(word, left + 3 * ratio, canvas.height - 4 * ratio);
  }
}
