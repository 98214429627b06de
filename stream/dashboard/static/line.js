/** What the line to the session is like, where nobody can overlook it. */

import { $, mark, say } from "/static/dom.js";
import { age } from "/static/format.js";

const WORDS = { open: "connected", connecting: "connecting", lost: "no connection", refused: "refused" };
const LEVELS = { open: "ok", connecting: "off", lost: "bad", refused: "bad" };

export function lineShown() {
  return ({ state, text, ageMs }) => {
    mark(document.body, "data-line", state);
    mark($("line"), "data-level", LEVELS[state]);
    say($("line-word"), WORDS[state]);
    const lost = state === "lost" || state === "refused";
    $("line-lost").hidden = !lost;
    const old = `What you see is ${age(ageMs)} old.`;
    if (state === "lost") say($("line-lost"), `The connection is lost. ${old} It is tried again by itself.`);
    else if (lost) say($("line-lost"), `${text} ${old}`);
  };
}
