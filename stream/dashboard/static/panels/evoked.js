/** The mean of what follows a stimulus: whether there is a response at all, seen in the first minutes. */

import { $, batched, say } from "/static/dom.js";
import { count } from "/static/format.js";
import { butterfly } from "/static/butterfly.js";

export function evoked() {
  let newest = null;
  let marks = [];
  const render = batched(() => {
    butterfly($("evoked-plot"), newest?.n ? { times_s: newest.times_s, uv: newest.mean_uv } : null, { marks });
    $("evoked-empty").hidden = Boolean(newest?.n);
    say($("evoked-n"), newest?.n ? `${count(newest.n, "trial")} seen here` : "");
  });
  window.addEventListener("themechange", render);
  new ResizeObserver(render).observe($("evoked-plot"));
  return {
    hello({ window_ends_s }) {
      marks = window_ends_s;
    },
    state({ ended }) {
      if (ended) say($("evoked-empty"), "No mean response is kept of a session that has ended; its report may have one.");
    },
    evoked(message) {
      newest = message;
      render();
    },
  };
}
