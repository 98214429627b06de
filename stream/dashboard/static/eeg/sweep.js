/**
 * Draws a ring as a monitor does: the pen goes from left to right and over again, and only what is new
 * is drawn. Frames allocate nothing: sixty a second for hours would else be paid for in pauses.
 */

const LEFT = 46;
const ERASED = 14; // pixels free of traces before the pen
const NAME_PX = 11;

export class Sweep {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.drawn = 0; // samples before this one are on the canvas
  }

  /** How it looks from now on; draws all anew with `redraw`. */
  prepare(ring, names, { picked, scale_uv, window_s, isButterfly, colours, isCentred }) {
    const ratio = window.devicePixelRatio || 1;
    const { width, height } = this.canvas;
    Object.assign(this, { ring, picked, window_s, colours, ratio });
    this.left = LEFT * ratio;
    this.span = width - this.left - 2 * ratio;
    const spacing = (height - 14 * ratio) / Math.max(picked.length, 1);
    this.base = Float64Array.from(picked, (_, i) => (isButterfly ? height / 2 : 12 * ratio + (i + 0.5) * spacing));
    this.gain = isButterfly ? height / 2 / scale_uv : spacing / scale_uv;
    this.offsets = new Float64Array(ring.n);
    if (isCentred) ring.means(this.offsets);
    this.context.setTransform(1, 0, 0, 1, 0, 0);
    this.context.clearRect(0, 0, width, height);
    this.#names(isButterfly ? [] : picked.map((c) => names[c]), spacing, scale_uv, isButterfly);
  }

  #names(names, spacing, scale_uv, isButterfly) {
    const { context, ratio, colours } = this;
    context.font = `${NAME_PX * ratio}px system-ui, sans-serif`;
    context.fillStyle = colours.dim;
    context.textAlign = "right";
    context.textBaseline = "middle";
    const every = Math.ceil(((NAME_PX + 1) * ratio) / spacing);
    for (let i = 0; i < names.length; i += every) context.fillText(names[i], this.left - 6 * ratio, this.base[i]);
    if (!isButterfly) return;
    for (const value of [-scale_uv, 0, scale_uv]) {
      const y = this.canvas.height / 2 - value * this.gain * 0.92;
      context.fillText(`${Math.round(value * 0.92)}`.replace("-", "−"), this.left - 6 * ratio, y);
    }
  }

  x(time_s) {
    const phase = time_s / this.window_s;
    return this.left + (phase - Math.floor(phase)) * this.span;
  }

  /** All that the window holds up to `until_s`. */
  redraw(until_s) {
    const { ring } = this;
    let k = ring.count;
    const from_s = until_s - this.window_s * (1 - ERASED / (this.span / this.ratio));
    while (k > ring.oldest && ring.times[(k - 1) % ring.capacity] > from_s) k--;
    this.drawn = k;
    this.draw(until_s);
  }

  /** What has come since, up to `until_s`. */
  draw(until_s) {
    const { context, ring, picked, base, gain, offsets, ratio } = this;
    if (this.drawn < ring.oldest) this.drawn = ring.oldest;
    const from = this.drawn;
    let to = from;
    while (to < ring.count && ring.times[to % ring.capacity] <= until_s) to++;
    if (to === from) return;
    const start = Math.max(from - 1, ring.oldest);
    this.#erase(this.x(ring.times[start % ring.capacity]), this.x(ring.times[(to - 1) % ring.capacity]));
    context.strokeStyle = this.colours.ink;
    context.lineWidth = ratio;
    context.lineJoin = "round";
    context.beginPath();
    for (let p = 0; p < picked.length; p++) {
      const c = picked[p];
      let isDown = false;
      let before = 0;
      for (let k = start; k < to; k++) {
        const row = k % ring.capacity;
        const x = this.x(ring.times[row]);
        const y = base[p] - (ring.shown[row * ring.n + c] - offsets[c]) * gain;
        if (isDown && x > before && !ring.isAfterGap[row]) context.lineTo(x, y);
        else context.moveTo(x, y);
        isDown = true;
        before = x;
      }
    }
    context.stroke();
    this.drawn = to;
  }

  #erase(from, to) {
    const { context, canvas, left, span, ratio } = this;
    const end = left + span;
    const until = to + ERASED * ratio;
    if (to < from) {
      context.clearRect(from + 1, 0, end - from + 2, canvas.height);
      context.clearRect(left, 0, until - left, canvas.height);
    } else {
      context.clearRect(from + 1, 0, Math.min(until, end + 2) - from - 1, canvas.height);
      if (until > end) context.clearRect(left, 0, until - end, canvas.height);
    }
  }
}
