/** Butterworth filters of second order, sample by sample, one state for each channel. */

/** Coefficients of a high-pass or low-pass by the bilinear transform; null where there is none. */
export function coefficients(kind, corner_hz, rate_hz) {
  if (!corner_hz || corner_hz >= rate_hz / 2) return null;
  const k = Math.tan((Math.PI * corner_hz) / rate_hz);
  const norm = 1 / (1 + Math.SQRT2 * k + k * k);
  const b0 = kind === "high" ? norm : k * k * norm;
  return { b0, b1: kind === "high" ? -2 * b0 : 2 * b0, b2: b0, a1: 2 * (k * k - 1) * norm, a2: (1 - Math.SQRT2 * k + k * k) * norm };
}

export class Filter {
  constructor(coefficients, n_channels) {
    Object.assign(this, coefficients);
    this.z1 = new Float64Array(n_channels);
    this.z2 = new Float64Array(n_channels);
  }

  /** As if `values` had been there for ever: a trace does not begin with the filter's own swing. */
  settle(values, at) {
    const { b0, b1, b2, a1, a2 } = this;
    const gain = (b0 + b1 + b2) / (1 + a1 + a2);
    for (let c = 0; c < this.z1.length; c++) {
      const x = values[at + c];
      this.z1[c] = x * (gain - b0);
      this.z2[c] = x * (b2 - a2 * gain);
    }
  }

  /** Filters one sample of all channels in place. */
  step(values, at) {
    const { b0, b1, b2, a1, a2, z1, z2 } = this;
    for (let c = 0; c < z1.length; c++) {
      const x = values[at + c];
      const y = b0 * x + z1[c];
      z1[c] = b1 * x - a1 * y + z2[c];
      z2[c] = b2 * x - a2 * y;
      values[at + c] = y;
    }
  }
}
