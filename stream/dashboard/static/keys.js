/** The keyboard: what a hand does without a mouse, and the page that says so. */

import { $, make } from "/static/dom.js";

const PANELS = ["verdicts", "answer", "painting", "accuracy", "trials", "eeg", "head", "evoked", "latency", "settings"];
const KEYS = [
  ["space", "pause, or resume"],
  ["m", "mark this moment, with a text"],
  ["1 … 9, 0", "go to a panel, in the order of the page; 0: live settings"],
  ["← →", "in the strip: the trial before, the one after; enter opens it"],
  ["h", "hold the EEG still"],
  ["l", "open or close the log"],
  ["c", "the checks: this machine and the session, as `doctor` looks at them"],
  ["t", "dark, light, or as the system"],
  ["? or /", "this page"],
  ["Esc", "close what is open"],
];
const SIGNS = [
  [["sign", { "data-outcome": "hit" }, "1"], "right: the image that was shown came first"],
  [["sign", { "data-outcome": "near" }, "3"], "its rank, where it was among the first five"],
  [["sign", { "data-outcome": "miss" }, "27"], "its rank, further down"],
  [["sign", { "data-outcome": "abstain" }, "?"], "abstained: not sure enough to say"],
  [["sign", { "data-outcome": "dropped" }, "×"], "dropped, for a reason"],
  [["sign", { "data-outcome": "open" }, "…"], "no answer yet"],
  [["shape", { "data-level": "ok" }], "well"],
  [["shape", { "data-level": "warn" }], "look at it"],
  [["shape", { "data-level": "bad" }], "act: its sentence says how"],
  [["shape", { "data-level": "off" }], "not in use"],
];

export function keyboard() {
  for (const [key, told] of KEYS) $("help-keys").append(make("dt", {}, make("kbd", {}, key)), make("dd", {}, told));
  for (const [[kind, attributes, text], told] of SIGNS)
    $("help-signs").append(make("dt", {}, make("span", { class: kind, ...attributes }, text)), make("dd", {}, told));
  $("help-open").addEventListener("click", () => $("help-dialog").showModal());
  for (const dialog of document.querySelectorAll("dialog"))
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.id !== "form-dialog" && dialog.close());

  const press = (id) => () => $(id)?.click();
  const does = {
    " ": () => document.querySelector('[data-verb="pause"]:enabled, [data-verb="resume"]:enabled')?.click(),
    m: () => $("argument-mark")?.focus(),
    h: press("eeg-hold"),
    l: press("log-open"),
    c: press("checks-open"),
    t: press("theme"),
    "?": press("help-open"),
    "/": press("help-open"),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.key === "Escape") {
      for (const open of document.querySelectorAll("details[open]")) open.removeAttribute("open");
      document.activeElement.blur();
    }
    if (event.target.closest("input, select, textarea, summary") || (event.key === " " && event.target.closest("button"))) return;
    const panel = PANELS["1234567890".indexOf(event.key)];
    if (event.key.length === 1 && panel) {
      $(panel).scrollIntoView({ block: "nearest" });
      $(panel).focus({ preventScroll: true });
    } else if (does[event.key]) does[event.key]();
    else return;
    event.preventDefault();
  });
}
