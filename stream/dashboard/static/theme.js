/** Dark, light, or as the system has it. */

import { $, mark, say } from "/static/dom.js";

const CHOICES = ["auto", "dark", "light"];
const KEPT = "hvf-live-theme";

export function theme() {
  const show = (choice) => {
    mark(document.documentElement, "data-theme", choice === "auto" ? null : choice);
    mark($("theme"), "aria-label", `Colours: ${choice === "auto" ? "as the system" : choice}`);
    say($("theme"), choice);
    localStorage.setItem(KEPT, choice);
    window.dispatchEvent(new Event("themechange"));
  };
  const kept = localStorage.getItem(KEPT);
  show(CHOICES.includes(kept) ? kept : "auto");
  $("theme").addEventListener("click", () => {
    show(CHOICES[(CHOICES.indexOf(localStorage.getItem(KEPT)) + 1) % CHOICES.length]);
  });
  matchMedia("(prefers-color-scheme: light)").addEventListener("change", () => {
    window.dispatchEvent(new Event("themechange"));
  });
}
