/** Counts what drawing costs: work in each frame, and frames that came too late to be shown. */

const N = 240;

export class Frames {
  constructor() {
    this.work_ms = new Float64Array(N);
    this.steps_ms = new Float64Array(N);
    this.count = 0;
    this.dropped = 0;
    this.before = 0;
  }

  /** One frame at `now`, whose work took `work_ms`. */
  add(now, work_ms) {
    const step = now - this.before;
    const isFirst = !this.before || step > 1000; // a page that was hidden had no frames to drop
    this.before = now;
    if (isFirst) return;
    this.work_ms[this.count % N] = work_ms;
    this.steps_ms[this.count % N] = step;
    this.count++;
    if (this.count > N && step > 1.5 * this.usual_ms) this.dropped += Math.round(step / this.usual_ms) - 1;
    if (this.count % N === 0) this.usual_ms = median(this.steps_ms);
  }

  /** In words, once a second; the screen's own pace is known after the first frames. */
  told() {
    const n = Math.min(this.count, N);
    return n ? `${median(this.work_ms.subarray(0, n)).toFixed(1)} ms a frame · ${this.dropped} frames not drawn` : "";
  }
}

function median(values) {
  return Float64Array.from(values).sort()[Math.floor(values.length / 2)];
}
