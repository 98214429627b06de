/** The bar of verdicts: one word for each part of the system, and why where it is not well. */

import { $, make, mark, say } from "/static/dom.js";
import { age, elapsed } from "/static/format.js";

const STATE_WORDS = {
  starting: "STARTING", waiting: "WAITING", ready: "READY", paused: "PAUSED",
  ending: "ENDING", ended: "ENDED", sought: "LOOKING", lost: "LOST",
};
const MODES = { live: "live", replay: "replay", demo: "demo", record: "recording", finished: "finished" };
const PARTS = ["EEG", "markers", "decoder", "painter", "recorder", "clock"];
const OLD_MS = 1000;

export function verdicts() {
  const tiles = new Map(PARTS.map((part) => [part, tile(part)]));
  for (const { root } of tiles.values()) $("verdicts").append(root);

  return {
    hello({ session, rights, n_gallery }) {
      say($("title"), session.title || session.id);
      document.title = `${session.title || session.id} · hvf-live`;
      // Also a replay without a model decodes nothing.
      mark(document.body, "data-mode", n_gallery ? session.mode : "record");
      mark(document.body, "data-folder", session.folder);
      const badges = [["mode", MODES[session.mode] ?? session.mode]];
      if (session.simulated) badges.push(["simulated", "simulated subject"]);
      if (session.blind) badges.push(["blind", "blind"]);
      if (rights === "look") badges.push(["look", "read only"]);
      $("badges").replaceChildren(...badges.map(([kind, word]) => make("li", { "data-badge": kind }, word)));
    },

    state(state) {
      mark(document.body, "data-state", state.state);
      mark($("ready"), "data-state", state.state);
      say($("state-word"), state.ended?.failure ? "FAILED" : (STATE_WORDS[state.state] ?? state.state));
      say($("state-sentence"), state.ended?.failure || state.sentence);
      mark($("ready"), "data-failed", state.ended?.failure ? "" : null);
      for (const verdict of state.verdicts) show(tiles.get(verdict.part), verdict);
      say($("elapsed"), elapsed(state.elapsed_s));
      say($("sample-age"), state.ended ? "–" : age(state.newest_sample_age_ms));
      const isDue = state.verdicts.some(({ part, level }) => part === "EEG" && level !== "off");
      mark($("sample-age").parentElement, "data-level", state.newest_sample_age_ms > OLD_MS && isDue ? "warn" : null);
    },
  };
}

function tile(part) {
  const word = make("p", { class: "word" }, "–");
  const why = make("p", { class: "why" });
  const shape = make("i", { class: "shape" });
  const root = make("div", { class: "tile", "data-level": "off", "data-part": part }, make("h2", {}, shape, part), word, why);
  return { root, word, why };
}

function show({ root, word, why }, verdict) {
  mark(root, "data-level", verdict.level);
  mark(root, "aria-live", verdict.level === "bad" ? "assertive" : "polite");
  say(word, verdict.word);
  const isWell = verdict.level === "ok" || !verdict.sentence;
  say(why, isWell ? verdict.detail : verdict.sentence);
  mark(root, "title", [verdict.sentence, verdict.detail].filter(Boolean).join(" · "));
}
