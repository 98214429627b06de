/** One trial of the strip, whole: what became of it, all its answers, and its EEG. */

import { $, make, noPicture, say, thumbnail } from "/static/dom.js";
import { ms, percent, seconds } from "/static/format.js";
import { butterfly } from "/static/butterfly.js";
import { ended } from "/static/panels/trials.js";

export function trialView(connection) {
  const dialog = $("trial-dialog");
  const canvas = make("canvas", { role: "img", "aria-label": "EEG of this trial" });
  const told = make("p", { class: "empty" });
  const facts = make("div", { class: "trial-facts" });
  const answers = make("div", { class: "trial-answers" });
  $("trial-body").append(facts, answers, make("h3", {}, "Its EEG"), make("div", { class: "scope" }, canvas, told));
  let trial = null;
  let heard = null;

  function show() {
    say($("trial-title"), `Trial ${trial.trial} · ${ended(trial).words}`);
    facts.replaceChildren(...factsOf(trial));
    answers.replaceChildren(answersOf(trial));
  }

  function drawEeg() {
    if (!dialog.open) return;
    const marks = trial.answers.map(({ tmax_s }) => tmax_s);
    butterfly(canvas, heard?.uv ? heard : null, { marks });
    say(told, heard ? (heard.uv ? "" : heard.sentence) : "asking for it …");
  }

  window.addEventListener("themechange", drawEeg);
  new ResizeObserver(drawEeg).observe(canvas);

  return {
    async open(chosen) {
      trial = chosen;
      heard = null;
      show();
      dialog.showModal();
      drawEeg();
      const { ok, text } = await connection.ask({ ask: "trial_eeg", trial: chosen.trial });
      if (!ok && trial === chosen && !heard) heard = { uv: null, sentence: text };
      drawEeg();
    },
    renew(changed) {
      if (!dialog.open || changed.trial !== trial?.trial) return;
      trial = changed;
      show();
    },
    eeg(message) {
      if (message.trial !== trial?.trial) return;
      heard = message;
      drawEeg();
    },
  };
}

function factsOf(trial) {
  const pictures = make("div", { class: "pictures" });
  const shown = trial.shown ? thumbnail(trial.shown.id, trial.shown.label, "medium") : noPicture("not known", "medium");
  pictures.append(make("figure", {}, shown, make("figcaption", {}, `shown: ${trial.shown?.label ?? "not known"}`)));
  if (trial.painted) pictures.append(make("figure", {}, make("img", { class: "medium", src: trial.painted, alt: "painted" }), make("figcaption", {}, "painted")));
  const rows = [
    ["stimulus", trial.stimulus], ["marker", trial.marker], ["group", trial.group], ["block", trial.block], ["repeat", trial.repeat],
    ["onset", trial.onset_s == null ? null : `${trial.onset_s.toFixed(3)} s on the session's clock`],
    ["latency", trial.latency_ms == null ? null : `${ms(trial.latency_ms)} ms`],
    ["outcome", trial.outcome + (trial.reason ? `: ${trial.reason.replaceAll("_", " ")}` : "")],
  ].filter(([, value]) => value != null && value !== "");
  return [pictures, make("dl", {}, rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", { class: "number" }, String(value))]))];
}

/** A column for each window end: its five, the shown one marked. */
function answersOf({ answers, shown }) {
  if (!answers.length) return make("p", { class: "dim" }, "It has no answer.");
  return make("div", { class: "columns" }, answers.map((one) => make(
    "section", {},
    make("h3", { class: "number" }, seconds(one.tmax_s), make("span", { class: "dim" }, ` · ${one.n_repeats} × · ${one.rank ? `rank ${one.rank}` : "rank not known"}${one.abstain ? " · abstains" : ""}${one.calibrated ? "" : " · uncalibrated"}`)),
    make("ol", {}, one.labels.map((label, at) => make("li", one.ids[at] === shown?.id ? { "data-shown": "" } : {}, make("span", {}, label), make("span", { class: "number" }, percent(one.probabilities[at]))))),
  )));
}
