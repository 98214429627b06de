/** The EEG as it comes: what is seen of it, how large, through which filters. */

import { $, colours, fit, make, mark, say } from "/static/dom.js";
import { Frames } from "/static/eeg/frames.js";
import { Overlay } from "/static/eeg/overlay.js";
import { Ring } from "/static/eeg/ring.js";
import { Sweep } from "/static/eeg/sweep.js";

const LONGEST_S = 20;
const N_LOOKS = 5; // seconds, after which the first scale stays
const DELAY_S = 0.12; // the pen runs so far behind: pieces come twenty times a second, frames sixty
const CHOICES = {
  "eeg-scale": [[10, 20, 50, 100, 200, 500, 1000], 100, (v) => `${v} µV`],
  "eeg-window": [[2, 5, 10, LONGEST_S], 10, (v) => `${v} s`],
  "eeg-high": [[0, 0.1, 0.5, 1, 2], 0.5, (v) => (v ? `${v} Hz` : "off")],
  "eeg-low": [[0, 8, 15, 30, 40], 0, (v) => (v ? `${v} Hz` : "off")],
};

export function eeg() {
  const sweep = new Sweep($("eeg-traces"));
  const overlay = new Overlay($("eeg-over"));
  const frames = new Frames();
  const quality = new Map();
  let ring = null;
  let channels = [];
  let off = new Set();
  let rate_hz = 0;
  let pen_s = -Infinity;
  let isHeld = false;
  let isStale = true; // something about the picture has changed: it is drawn anew

  for (const [id, [values, usual, told]] of Object.entries(CHOICES)) {
    $(id).append(...values.map((value) => make("option", { value, selected: value === usual }, told(value))));
  }
  const number = (id) => Number($(id).value);
  const filtered = () => {
    ring?.showAs({ high_hz: number("eeg-high"), low_hz: number("eeg-low"), reference: $("eeg-reference").value });
    isStale = true;
  };
  for (const id of ["eeg-high", "eeg-low", "eeg-reference"]) $(id).addEventListener("change", filtered);
  for (const id of ["eeg-scale", "eeg-window", "eeg-view"]) $(id).addEventListener("change", () => (isStale = true));
  window.addEventListener("themechange", () => (isStale = true));
  $("eeg-hold").addEventListener("click", () => {
    isHeld = !isHeld;
    mark($("eeg-hold"), "aria-pressed", isHeld);
    say($("eeg-hold"), isHeld ? "go on" : "hold");
  });

  // The first scale is that of this cap; whoever has chosen one keeps it.
  let isScaled = false;
  let n_looks = 0;
  let quiet_uv = Infinity; // of the first seconds the quietest: a blink is no scale
  $("eeg-scale").addEventListener("change", () => (isScaled = true));
  const scaleTo = (newest) => {
    const rms = newest.map(({ rms_uv }) => rms_uv).sort((a, b) => a - b)[Math.floor(newest.length / 2)];
    quiet_uv = Math.min(quiet_uv, rms);
    const [values] = CHOICES["eeg-scale"];
    $("eeg-scale").value = values.find((value) => value >= 5 * quiet_uv) ?? values.at(-1);
    isScaled = ++n_looks === N_LOOKS;
    isStale = true;
  };

  const picks = () => {
    isStale = true;
    say($("eeg-picked"), `${channels.length - off.size}/${channels.length}`);
    for (const box of $("pick-list").querySelectorAll("input")) box.checked = !off.has(box.value);
  };
  const keep = (isKept) => () => {
    off = new Set(channels.filter((channel) => !isKept(channel)).map(({ name }) => name));
    picks();
  };
  $("pick-all").addEventListener("click", keep(() => true));
  $("pick-good").addEventListener("click", keep(({ name }) => (quality.get(name) ?? "ok") === "ok"));
  $("pick-back").addEventListener("click", keep(({ y, known }) => known && y < -0.35));
  $("pick-list").addEventListener("change", ({ target }) => {
    if (target.checked) off.delete(target.value);
    else off.add(target.value);
    picks();
  });

  function prepare() {
    fit($("eeg-traces"));
    fit($("eeg-over"));
    const picked = channels.map((_, c) => c).filter((c) => !off.has(channels[c].name));
    sweep.prepare(ring, channels.map(({ name }) => name), {
      picked, scale_uv: number("eeg-scale"), window_s: number("eeg-window"),
      isButterfly: $("eeg-view").value === "butterfly", isCentred: !number("eeg-high"), colours: colours(),
    });
    sweep.redraw(pen_s);
    isStale = false;
  }

  let before = 0;
  let drawnAt_s = null;
  function frame(now) {
    requestAnimationFrame(frame);
    if (!ring?.count || document.hidden) return;
    const began = performance.now();
    const step_s = Math.min(0.1, (now - before) / 1000);
    before = now;
    if (!isHeld) {
      const newest = ring.newest_s;
      const late_s = newest - DELAY_S - pen_s; // a fiftieth of it is made up for in each frame
      pen_s = late_s > 4 * DELAY_S ? newest - DELAY_S : Math.min(newest, pen_s + Math.max(0, step_s + late_s / 50));
    }
    const isStill = pen_s === drawnAt_s; // a stream that is lost, or held: nothing is new
    if (isStill && !isStale) return;
    drawnAt_s = pen_s;
    if (isStale) prepare();
    else sweep.draw(pen_s);
    overlay.draw(sweep, pen_s);
    frames.add(now, performance.now() - began);
  }
  requestAnimationFrame(frame);
  new ResizeObserver(() => (isStale = true)).observe($("eeg-traces"));
  setInterval(() => {
    if (!ring) return;
    const amplifier = rate_hz ? ` of ${rate_hz} Hz` : "";
    const shown = `${+ring.rate_hz.toFixed(1)} Hz${ring.rate_hz < rate_hz ? `${amplifier}, without mains` : ""}`;
    say($("eeg-facts"), [shown, `a row is ${number("eeg-scale")} µV`, frames.told()].filter(Boolean).join(" · "));
  }, 1000);

  return {
    hello(hello) {
      const isOther = hello.channels.map(({ name }) => name).join() !== channels.map(({ name }) => name).join();
      rate_hz = hello.rate_hz;
      if (!isOther) return;
      channels = hello.channels;
      off = new Set();
      ring = null;
      $("pick-list").replaceChildren(...channels.map(({ name }) => make("label", {}, make("input", { type: "checkbox", value: name }), name)));
      picks();
    },
    eeg(piece) {
      if (piece.n_channels !== channels.length) return; // of a stream that has just changed: its hello comes
      if (ring?.rate_hz !== piece.rate_hz || ring.n !== piece.n_channels) {
        ring = new Ring(piece.n_channels, piece.rate_hz, LONGEST_S);
        pen_s = -Infinity;
        filtered();
        $("eeg-empty").hidden = true;
      }
      const isFar = Math.abs(piece.first_s - ring.newest_s) > LONGEST_S;
      overlay.add(piece, ring.add(piece));
      if (isFar) isStale = true;
    },
    state({ ended }) {
      if (ended) say($("eeg-empty"), "The session has ended: its EEG is in its recording, if it kept one.");
    },
    quality({ channels: newest }) {
      if (!isScaled) scaleTo(newest);
      for (const { name, level } of newest) quality.set(name, level);
    },
  };
}
