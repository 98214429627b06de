/** The strip of past trials, newest at the right; each opens itself. */

import { $, batched, make, mark, noPicture, say, thumbnail } from "/static/dom.js";
import { count, percent } from "/static/format.js";

const N_SHOWN = 50;
const N_NEAR = 5;

/** `open` is given the trial that was chosen. */
export function trials(view) {
  const known = new Map();
  const cells = new Map();
  const strip = $("strip");
  let session = null;
  let hasFollowed = true;

  const render = batched(() => {
    const last = [...known.keys()].sort((a, b) => a - b).slice(-N_SHOWN);
    for (const trial of known.keys()) if (trial < last[0] - 200) known.delete(trial);
    for (const [trial, cell] of cells) {
      if (trial >= last[0]) continue;
      cell.remove();
      cells.delete(trial);
    }
    hasFollowed = strip.scrollLeft + strip.clientWidth > strip.scrollWidth - 60;
    for (const trial of last) {
      if (!cells.has(trial)) place(trial);
      fill(cells.get(trial), known.get(trial));
    }
    if (hasFollowed) strip.scrollLeft = strip.scrollWidth;
    mark(strip, "data-empty", last.length ? null : "No trial yet: each marker of the stimulus program opens one, and its end is shown here.");
    tabStop();
  });

  function place(trial) {
    const cell = make("li", {}, make("button", { type: "button", class: "trial", "data-trial": trial, tabindex: "-1", onclick: () => view.open(known.get(trial)) }));
    const after = [...cells.keys()].filter((other) => other > trial).sort((a, b) => a - b)[0];
    strip.insertBefore(cell, after == null ? null : cells.get(after));
    cells.set(trial, cell);
  }

  function tabStop() {
    if (strip.querySelector('[tabindex="0"]')) return;
    strip.lastElementChild?.firstElementChild.setAttribute("tabindex", "0");
  }

  strip.addEventListener("keydown", (event) => {
    const cell = document.activeElement.closest("li");
    const step = { ArrowLeft: "previousElementSibling", ArrowRight: "nextElementSibling" }[event.key];
    const next = step && cell?.[step]?.firstElementChild;
    if (!next) return;
    strip.querySelector('[tabindex="0"]')?.setAttribute("tabindex", "-1");
    next.setAttribute("tabindex", "0");
    next.focus();
    event.preventDefault();
  });
  render();

  return {
    hello({ session: said }) {
      if (session === said.id) return;
      session = said.id;
      known.clear();
      cells.clear();
      strip.replaceChildren();
      render();
    },
    trial(trial) {
      known.set(trial.trial, trial);
      view.renew(trial);
      render();
    },
    state({ ledger }) {
      const parts = [`${ledger.decoded} decoded`, ledger.cut && `${ledger.cut} cut`, `${ledger.dropped} dropped`, `${ledger.pending} open`];
      const sum = `${count(ledger.markers, "marker")} = ${parts.filter(Boolean).join(" + ")}`;
      say($("ledger"), ledger.adds_up ? `${sum} ✓` : `${sum} ✗ does not add up: look at the log`);
      mark($("ledger"), "data-level", ledger.adds_up ? null : "bad");
      const reasons = Object.entries(ledger.reasons).filter(([, n]) => n).map(([reason, n]) => `${n} ${reason.replaceAll("_", " ")}`);
      say($("reasons"), reasons.length ? `dropped: ${reasons.join(" · ")}` : "");
    },
    trial_eeg: view.eeg,
  };
}

/** What became of a trial: kind, sign and words; never a colour alone. */
export function ended(trial) {
  const last = trial.answers.at(-1);
  if (trial.outcome === "dropped") return { kind: "dropped", sign: "×", words: `dropped: ${trial.reason.replaceAll("_", " ")}` };
  if (trial.outcome === "cut") return { kind: "cut", sign: "▢", words: "cut, not decoded" };
  if (!last) return { kind: "open", sign: "…", words: "no answer yet" };
  if (last.abstain) return { kind: "abstain", sign: "?", words: "abstained" };
  if (!last.rank) return { kind: "unknown", sign: percent(last.confidence).replace(" ", ""), words: `answered ${last.labels[0]}` };
  if (last.rank === 1) return { kind: "hit", sign: "1", words: "right" };
  return { kind: last.rank <= N_NEAR ? "near" : "miss", sign: `${last.rank}`, words: `rank ${last.rank}, answered ${last.labels[0]}` };
}

function fill(cell, trial) {
  const { kind, sign, words } = ended(trial);
  const button = cell.firstElementChild;
  const key = `${kind}${sign}${trial.shown?.id}`;
  if (button.dataset.key === key) return;
  button.dataset.key = key;
  const what = trial.shown?.label ?? trial.stimulus ?? "";
  const told = `trial ${trial.trial}${what ? `, ${what}` : ""}: ${words}`;
  mark(button, "aria-label", told);
  mark(button, "title", told);
  const small = trial.shown ? thumbnail(trial.shown.id, "") : noPicture("");
  button.replaceChildren(small, make("span", { class: "sign number", "data-outcome": kind }, sign));
}
