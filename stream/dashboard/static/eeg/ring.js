/** The last seconds of the EEG, as they came and as they are shown. */

import { coefficients, Filter } from "/static/eeg/filters.js";

const GAP_SAMPLES = 1.5; // stamps further apart than this have something missing between them

export class Ring {
  /** Of `seconds` at `rate_hz`; sample k, counted from the first, lies at row k % capacity. */
  constructor(n_channels, rate_hz, seconds) {
    this.n = n_channels;
    this.rate_hz = rate_hz;
    this.capacity = Math.ceil(seconds * rate_hz);
    this.raw = new Float32Array(this.capacity * n_channels);
    this.shown = new Float32Array(this.capacity * n_channels);
    this.times = new Float64Array(this.capacity);
    this.isAfterGap = new Uint8Array(this.capacity);
    this.count = 0;
    this.how = { high_hz: 0, low_hz: 0, reference: "as is" };
    this.filters = [];
  }

  get oldest() {
    return Math.max(0, this.count - this.capacity);
  }

  get newest_s() {
    return this.count ? this.times[(this.count - 1) % this.capacity] : -Infinity;
  }

  /** Takes a piece; the span that is missing before it, [from_s, to_s], or null. */
  add({ values, first_s, n_samples, gap_before }) {
    const before = this.newest_s;
    const isLate = first_s - before > GAP_SAMPLES / this.rate_hz;
    const isGap = this.count > 0 && (gap_before || isLate);
    for (let i = 0; i < n_samples; i++) {
      const row = this.count % this.capacity;
      this.raw.set(values.subarray(i * this.n, (i + 1) * this.n), row * this.n);
      this.times[row] = first_s + i / this.rate_hz;
      this.isAfterGap[row] = i === 0 && (isGap || !this.count) ? 1 : 0;
      this.#show(row);
      this.count++;
    }
    return isGap && first_s > before ? [before, first_s] : null;
  }

  /** Shows all that is there in another way: {high_hz, low_hz, reference}. */
  showAs(how) {
    this.how = how;
    this.filters = [["high", how.high_hz], ["low", how.low_hz]]
      .map(([kind, corner_hz]) => coefficients(kind, corner_hz, this.rate_hz))
      .filter(Boolean)
      .map((found) => new Filter(found, this.n));
    for (let k = this.oldest; k < this.count; k++) this.#show(k % this.capacity, k === this.oldest);
  }

  #show(row, isFirst = false) {
    const at = row * this.n;
    for (let c = 0; c < this.n; c++) this.shown[at + c] = this.raw[at + c];
    if (this.how.reference === "average") {
      let sum = 0;
      for (let c = 0; c < this.n; c++) sum += this.shown[at + c];
      for (let c = 0; c < this.n; c++) this.shown[at + c] -= sum / this.n;
    }
    for (const filter of this.filters) {
      if (isFirst || this.isAfterGap[row]) filter.settle(this.shown, at);
      filter.step(this.shown, at);
    }
  }

  /** The mean of each channel over what is there, into `means`: what is not filtered has offsets. */
  means(means) {
    means.fill(0);
    const n = this.count - this.oldest;
    for (let k = this.oldest; k < this.count; k++) {
      const at = (k % this.capacity) * this.n;
      for (let c = 0; c < this.n; c++) means[c] += this.shown[at + c] / n;
    }
  }
}
