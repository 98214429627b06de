/** What the doctor finds of this machine and of the session: the worst first, as it is found. */

import { $, batched, make, mark, say } from "/static/dom.js";
import { count } from "/static/format.js";

const LEVELS = { FAIL: "bad", warn: "warn", ok: "ok" };
const STATES = Object.keys(LEVELS); // from the worst to the best
const SCOPE = {
  going: "This machine, its network, LSL and the session's streams. Some seconds, in a process that gives way to the session.",
  over: "What the session has left in its folder.",
};

export function checks(connection) {
  const dialog = $("checks-dialog");
  let found = { state: "never", at: "", verdicts: [] };
  let refusal = "";

  const show = batched(() => {
    const isRunning = found.state === "running";
    const sums = STATES.map((state) => [state, found.verdicts.filter((one) => one.state === state).length]);
    const told = sums.map(([state, n]) => `${n} ${state}`).reverse().join(", ");
    const [worst, n] = sums.find(([, n]) => n) ?? ["", 0];
    say($("checks-told"), refusal || (isRunning ? `Since ${found.at}: ${count(found.verdicts.length, "verdict")} …` : found.at && `At ${found.at}: ${told}.`));
    mark($("checks-told"), "data-level", refusal ? "bad" : null);
    $("checks-begin").disabled = isRunning;
    say($("checks-begin"), isRunning ? "looks …" : found.at ? "look again" : "look");
    mark($("checks-open"), "data-level", isRunning ? "off" : (LEVELS[worst] ?? null));
    say($("checks-word"), !isRunning && worst && worst !== "ok" ? `checks: ${n} ${worst}` : "checks");
    const lines = [...found.verdicts].sort((a, b) => STATES.indexOf(a.state) - STATES.indexOf(b.state));
    $("checks-lines").replaceChildren(...lines.map(line));
  });

  const look = async () => {
    const { ok, text } = await connection.ask({ ask: "check" });
    refusal = ok ? "" : text;
    show();
  };
  $("checks-begin").addEventListener("click", look);
  $("checks-open").addEventListener("click", () => {
    dialog.showModal();
    if (found.state === "never") look();
  });
  show();

  return {
    hello({ rights }) {
      $("checks-open").disabled = rights !== "control";
    },
    state({ ended }) {
      say($("checks-scope"), ended ? SCOPE.over : SCOPE.going);
    },
    checks(message) {
      found = message;
      refusal = "";
      show();
    },
  };
}

const line = ({ section, state, text }) =>
  make("li", { "data-level": LEVELS[state] }, make("i", { class: "shape" }), make("b", {}, state), make("span", { class: "dim" }, section), make("span", { class: "text" }, text));
