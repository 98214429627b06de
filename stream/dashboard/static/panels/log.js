/** What the parts of the session say; it opens itself on trouble. */

import { $, make, mark, say } from "/static/dom.js";

const N_KEPT = 200;

export function log() {
  let greeted_s = 0; // what was said before is no news
  let offset = 0;
  const open = (isOpen) => {
    mark($("log"), "data-open", isOpen ? "" : null);
    mark($("log-open"), "aria-expanded", isOpen);
    if (isOpen) $("log-lines").scrollTop = $("log-lines").scrollHeight;
  };
  $("log-open").addEventListener("click", () => open(!$("log").hasAttribute("data-open")));
  $("log-close").addEventListener("click", () => open(false));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !document.querySelector("dialog[open]")) open(false);
  });

  return {
    hello({ now_s }) {
      offset = Date.now() / 1000 - now_s;
      greeted_s = now_s;
      $("log-lines").replaceChildren();
    },
    note({ at_s, node, level, text }) {
      const lines = $("log-lines");
      const time = new Date((at_s + offset) * 1000).toLocaleTimeString([], { hour12: false });
      lines.append(make("li", { "data-level": level === "info" ? "off" : level }, make("time", { class: "number" }, time), make("i", { class: "shape" }), make("b", {}, node), make("span", {}, text)));
      if (lines.children.length > N_KEPT) lines.firstElementChild.remove();
      say($("log-last"), `${node}: ${text}`);
      mark($("log-open"), "data-level", level === "info" ? null : level);
      if (level !== "info" && at_s > greeted_s) open(true);
      if ($("log").hasAttribute("data-open")) lines.scrollTop = lines.scrollHeight;
    },
  };
}
