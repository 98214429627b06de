/** All channels over one another against time, and their global field power. */

import { colours, fit } from "/static/dom.js";

const LEFT = 44;
const RIGHT = 8;
const TOP = 8;
const BOTTOM = 20;

/**
 * Draws {times_s, uv: [channel][time]}, or nothing where there is none.
 * `marks` are times at which a line stands, as window ends.
 */
export function butterfly(canvas, data, { marks = [] } = {}) {
  fit(canvas);
  const ratio = window.devicePixelRatio || 1;
  const context = canvas.getContext("2d");
  const [width, height] = [canvas.width / ratio, canvas.height / ratio];
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  if (!data?.times_s.length || !data.uv.length || width < LEFT + 20) return;
  const colour = colours();
  const [first, last] = [data.times_s[0], data.times_s.at(-1)];
  const most = nice(data.uv.reduce((a, row) => row.reduce((b, value) => Math.max(b, Math.abs(value)), a), 1e-3));
  const x = (time) => LEFT + ((time - first) / (last - first)) * (width - LEFT - RIGHT);
  const y = (value) => TOP + (0.5 - value / most / 2) * (height - TOP - BOTTOM);

  context.font = "12px system-ui, sans-serif";
  context.lineWidth = 1;
  context.fillStyle = colour.dim;
  context.strokeStyle = colour.line;
  context.textAlign = "right";
  for (const value of [-most, 0, most]) {
    line(context, LEFT, y(value), width - RIGHT, y(value));
    context.fillText(`${value > 0 ? "+" : ""}${value}`.replace("-", "−"), LEFT - 6, y(value) + 4);
  }
  context.save();
  context.translate(11, (TOP + height - BOTTOM) / 2);
  context.rotate(-Math.PI / 2);
  context.textAlign = "center";
  context.fillText("µV", 0, 0);
  context.restore();
  const step = [0.1, 0.2, 0.25, 0.5, 1, 2].find((one) => (last - first) / one <= width / 70) ?? 5;
  context.textAlign = "center";
  for (let tick = Math.ceil(first / step - 1e-9); tick * step <= last + 1e-9; tick++) {
    const label = `${+(tick * step).toFixed(2)}`.replace("-", "−");
    context.fillText(tick * step + step > last ? `${label} s` : label, Math.min(x(tick * step), width - 16), height - 5);
  }
  context.strokeStyle = colour.dim;
  if (first < 0 && last > 0) line(context, x(0), TOP, x(0), height - BOTTOM);
  context.setLineDash([3, 3]);
  for (const at of marks) if (at < last) line(context, x(at), TOP, x(at), height - BOTTOM);
  context.setLineDash([]);
  context.strokeStyle = colour.faint;
  for (const row of data.uv) curve(context, data.times_s, row, x, y);
  context.strokeStyle = colour.accent;
  context.lineWidth = 2;
  curve(context, data.times_s, power(data.uv), x, y);
  context.fillStyle = colour.accent;
  context.textAlign = "left";
  context.fillText("global field power", LEFT + 6, TOP + 12);
}

function line(context, x1, y1, x2, y2) {
  context.beginPath();
  context.moveTo(x1, y1);
  context.lineTo(x2, y2);
  context.stroke();
}

function curve(context, times, values, x, y) {
  context.beginPath();
  for (let i = 0; i < times.length; i++) context.lineTo(x(times[i]), y(values[i]));
  context.stroke();
}

/** The standard deviation over channels at each time. */
function power(rows) {
  return rows[0].map((_, at) => {
    const mean = rows.reduce((sum, row) => sum + row[at], 0) / rows.length;
    return Math.sqrt(rows.reduce((sum, row) => sum + (row[at] - mean) ** 2, 0) / rows.length);
  });
}

/** The next 1, 2 or 5 times a power of ten. */
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return +([1, 2, 5, 10].find((digit) => digit * power >= value) * power).toPrecision(1);
}
