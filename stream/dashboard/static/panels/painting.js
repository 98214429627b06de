/** The newest painting, from its first preview on. */

import { $, mark, noPicture, picture, say } from "/static/dom.js";

const WORDS = { begun: "begins", preview: "paints", painted: "painted", cancelled: "given up for a newer trial", failed: "failed" };

export function painting() {
  const place = $("painting-picture");
  let shown;
  const show = (url, alt, empty) => {
    if (shown === (url ?? empty)) return;
    const old = place.querySelector("img");
    if (url && old) old.src = url;
    else place.replaceChildren(url ? picture(url, alt, "large") : noPicture(empty, "large"));
    shown = url ?? empty;
  };
  show(null, "", "nothing is painted yet");

  return {
    state({ verdicts, ended }) {
      const painter = verdicts.find(({ part }) => part === "painter");
      if (painter?.level === "off" && !place.querySelector("img"))
        show(null, "", ended ? "nothing was painted" : "this session does not paint");
    },
    painting({ trial, state, step, n_steps, image, detail, scale, seed }) {
      if (image) show(image, `painted from trial ${trial}`);
      mark($("painting"), "data-painting", state);
      say($("painting-trial"), `trial ${trial}`);
      const done = state === "painted" ? 1 : n_steps ? step / n_steps : 0;
      $("painting-progress").value = done;
      const steps = state === "preview" && n_steps ? ` · step ${step} of ${n_steps}` : "";
      const how = state === "painted" && seed != null ? ` · scale ${scale}, seed ${seed}` : "";
      say($("painting-word"), `${WORDS[state] ?? state}${steps}${how}${detail ? ` · ${detail}` : ""}`);
    },
  };
}
