/** What was shown, and what is decoded of it: the newest answer, as it grows with the window. */

import { $, batched, make, mark, noPicture, say, thumbnail } from "/static/dom.js";
import { percent, seconds } from "/static/format.js";

const N_OTHERS = 4;

export function answer() {
  let hello = null;
  let trial = null; // the newest of which there is something to say; until then the one before stays
  let newestTrial = null;
  let abstainUnder = null;
  const rows = Array.from({ length: N_OTHERS }, row);
  $("answer-rest").append(...rows.map(({ root }) => root));
  const first = row();
  first.told = make("p", { class: "told" });
  first.root.querySelector(".text").append(first.told);
  $("answer-first").append(...first.root.childNodes);
  const ends = [];
  const render = batched(() => {
    showShown(trial, hello);
    const isBehind = newestTrial && newestTrial.trial !== trial?.trial;
    say($("answer-next"), isBehind ? `▸ ${newestTrial.trial}` : "");
    const answers = trial?.answers ?? [];
    showAnswer(first, rows, answers.at(-1) ?? null, trial, { hello, abstainUnder });
    showEnds(ends, answers, hello?.window_ends_s ?? [], answers.at(-1));
  });
  render();

  return {
    hello(message) {
      if (hello?.session.id !== message.session.id) trial = newestTrial = null;
      hello = message;
      abstainUnder = message.settings?.values["decoding.min_confidence"] || null;
      render();
    },
    trial(message) {
      if (message.trial >= (newestTrial?.trial ?? -1)) newestTrial = message;
      const isTold = message.answers.length || message.outcome === "dropped";
      if (message.trial >= (trial?.trial ?? -1) && (isTold || !trial)) trial = message;
      render();
    },
  };
}

function row() {
  const image = make("span", { class: "slot" }, noPicture(""));
  const label = make("b", { class: "label" });
  const share = make("span", { class: "share number" });
  const bar = make("i", { class: "bar" });
  const root = make("li", {}, image, make("div", { class: "text" }, label), share, make("span", { class: "track" }, bar));
  return { root, image, label, share, bar, shown: null };
}

function fill(line, id, label, probability, isShown) {
  if (line.id !== id) {
    line.id = id;
    line.image.replaceChildren(id == null ? noPicture("") : thumbnail(id, ""));
  }
  say(line.label, label);
  mark(line.label, "title", label || null);
  say(line.share, probability == null ? "" : percent(probability));
  line.bar.style.width = `${100 * (probability ?? 0)}%`;
  mark(line.label, "data-shown", isShown ? "" : null);
}

function showShown(trial, hello) {
  const place = $("shown-picture");
  const shown = trial?.shown;
  const why = !trial ? "waits for the first marker" : hello?.session.blind ? "hidden: this session is blind" : shown ? "" : "unknown stimulus";
  const key = shown?.id ?? why;
  if (place.dataset.key !== key) {
    place.dataset.key = key;
    place.replaceChildren(shown ? thumbnail(shown.id, shown.label, "large") : noPicture(why, "large"));
  }
  say($("shown-label"), shown?.label ?? (trial && !hello?.session.blind ? trial.stimulus : " "));
  say($("shown-trial"), trial ? `trial ${trial.trial}` : "");
}

function showAnswer(first, rows, newest, trial, { hello, abstainUnder }) {
  const shownId = trial?.shown?.id;
  [first, ...rows].forEach((line, at) => {
    const id = newest?.ids[at] ?? null;
    fill(line, id, newest?.labels[at] ?? "", newest?.probabilities?.[at], id != null && id === shownId);
  });
  const abstains = newest?.abstain ?? false;
  const dropped = trial?.outcome === "dropped";
  mark($("answer"), "data-abstain", abstains ? "" : null);
  mark($("answer"), "data-dropped", dropped ? "" : null);
  if (!newest) say(first.label, dropped ? "dropped" : trial ? "listening …" : "no trial yet");
  if (abstains) say(first.label, "abstains");
  say(first.told, toldOf(newest, trial, { hello, abstainUnder }));
  say($("answer-of"), newest ? `trial ${trial.trial} · ${ordinal(newest.n_repeats)} repeat · ${seconds(newest.tmax_s)} of EEG` : "");
  showFlags(newest, hello);
}

function toldOf(newest, trial, { hello, abstainUnder }) {
  if (trial?.outcome === "dropped") return `Trial ${trial.trial} was dropped: ${trial.reason.replaceAll("_", " ")}.`;
  if (!newest) return trial ? "Its EEG is still coming." : "The first marker of the stimulus program opens a trial.";
  if (newest.abstain) return `Surest is ${newest.labels[0]}${abstainUnder ? `, under the ${percent(abstainUnder)} that are asked for` : ", not sure enough"}.`;
  return `likeliest of ${hello?.n_gallery ?? "?"} images`;
}

/** Each flag has its place, taken or not. */
function showFlags(newest, hello) {
  const [raw, early, truth] = $("answer-flags").children;
  mark(raw, "data-on", newest && !newest.calibrated ? "" : null);
  mark(early, "data-on", newest?.provisional ? "" : null);
  const isKnown = newest?.rank > 0; // 0: nobody may know, or knows, what was shown
  mark(truth, "data-on", isKnown ? "" : null);
  mark(truth, "data-flag", isKnown ? (newest.rank === 1 ? "hit" : "miss") : null);
  if (isKnown) say(truth, newest.rank === 1 ? "✓ right" : `✗ rank ${newest.rank} of ${hello?.n_gallery ?? "?"}`);
}

/** One column for each window end: the first answer of then, and how sure it was. */
function showEnds(columns, answers, windowEnds, newest) {
  const list = $("answer-ends");
  if (columns.length !== windowEnds.length) {
    columns.splice(0, columns.length, ...windowEnds.map(endColumn));
    list.replaceChildren(...columns.map(({ root }) => root));
  }
  for (const column of columns) {
    const then = answers.find((one) => Math.abs(one.tmax_s - column.end) < 1e-6);
    mark(column.root, "data-now", then && then === newest ? "" : null);
    say(column.label, then ? (then.abstain ? "abstains" : then.labels[0]) : "–");
    say(column.share, then ? percent(then.confidence) : "");
  }
}

function endColumn(end) {
  const label = make("b", {}, "–");
  const share = make("span", { class: "number" });
  return { end, label, share, root: make("li", {}, make("span", { class: "when number" }, seconds(end)), label, share) };
}

function ordinal(n) {
  const last = n % 100 >= 11 && n % 100 <= 13 ? 0 : n % 10;
  return `${n}${["th", "st", "nd", "rd"][last] ?? "th"}`;
}
