/** A session that only records: what grows, and where it lies. */

import { $, make, mark, say } from "/static/dom.js";
import { bytes, elapsed } from "/static/format.js";

export function recording() {
  const size = make("b", { class: "huge number" }, "–");
  const time = make("b", { class: "huge number" }, "–");
  const file = make("p", { class: "told path" });
  const whole = make("p", { class: "told" });
  $("recording-body").append(
    make("div", { class: "rates" }, make("div", { class: "rate" }, make("span", { class: "dim" }, "written"), size), make("div", { class: "rate" }, make("span", { class: "dim" }, "for"), time)),
    file, whole,
  );
  return {
    state({ recorder, elapsed_s, ledger, ended }) {
      mark($("recording"), "data-writing", recorder && !ended ? "" : null);
      say(size, recorder ? bytes(recorder.bytes) : "–");
      say(time, elapsed(elapsed_s));
      say(file, recorder?.file ?? "No file is written yet.");
      say(whole, `${ledger.markers} markers so far. Nothing is decoded in this session.`);
    },
  };
}
