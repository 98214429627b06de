/** Numbers as they are read: with their unit, and as many digits as mean something. */

export const percent = (rate) => (rate == null ? "–" : `${Math.round(100 * rate)} %`);

/** A rate with one decimal, where few trials do not make it a lie. */
export const rate = (value) => (value == null ? "–" : `${(100 * value).toFixed(1)} %`);

export const interval = ({ low, high }) => `${(100 * low).toFixed(0)} to ${(100 * high).toFixed(0)} %`;

export function ms(value) {
  if (value == null) return "–";
  return value < 10 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : value.toFixed(0);
}

export const uv = (value) => (value < 10 ? value.toFixed(1) : value.toFixed(0));

export function bytes(n) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const power = Math.min(units.length - 1, Math.floor(Math.log10(Math.max(n, 1)) / 3));
  return `${(n / 1000 ** power).toFixed(power ? 1 : 0)} ${units[power]}`;
}

/** 83 s as 1:23, an hour as 1:00:00. */
export function elapsed(seconds) {
  if (seconds == null) return "–";
  const whole = Math.max(0, Math.floor(seconds));
  const two = (n) => String(n).padStart(2, "0");
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

/** A window end: 0.996 s is a second to whoever looks on. */
export const seconds = (value) => `${+value.toFixed(2)} s`;

/** How long ago, in the one unit that is read at a glance. */
export function age(milliseconds) {
  if (milliseconds == null) return "–";
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  return milliseconds < 120e3 ? `${(milliseconds / 1000).toFixed(1)} s` : `${Math.round(milliseconds / 60e3)} min`;
}

export const count = (n, thing) => `${n.toLocaleString("en")} ${thing}${n === 1 ? "" : "s"}`;
