/** What the line to the session is like, where nobody can overlook it. */

import { $, mark, say } from "/static/dom.js";
import { age } from "/static/format.js";

const WORDS = { open: "connected", over: "session over", connecting: "connecting", lost: "no connection", refused: "refused" };
const LEVELS = { open: "ok", over: "off", connecting: "off", lost: "bad", refused: "bad" };

export function lineShown() {
  return ({ state, text, ageMs }) => {
    mark(document.body, "data-line", state);
    mark($("line"), "data-level", LEVELS[state]);
    say($("line-word"), WORDS[state]);
    const lost = state === "lost" || state === "refused";
    $("line-lost").hidden = !lost && state !== "over";
    const old = `What you see is ${age(ageMs)} old.`;
    if (state === "lost") say($("line-lost"), `The connection is lost. ${old} It is tried again by itself; a page that was started anew has a new link.`);
    else if (state === "over") say($("line-lost"), `The session is over. To look at it again: python run_realtime.py dashboard ${document.body.dataset.folder}`);
    else if (lost) say($("line-lost"), `${text} ${old}`);
  };
}
