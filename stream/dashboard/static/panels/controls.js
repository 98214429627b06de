/** What the operator can do, by the state of the session; the rest is greyed and says when. */

import { $, make, mark, say } from "/static/dom.js";

const HINTS = { text: "what happened", id: "stimulus", folder: "folder of a gallery" };
const CONSEQUENCES = {
  finish: "No more trials are opened, those that are open are answered, and the session ends with its report.",
  stop: "The session ends now. Trials that are open are dropped as shutdown.",
  gallery: "Answers will be among the images of the other gallery from the next trial on.",
};
const KEYS = { pause: "space", resume: "space", mark: "m" };
const TURNS = ["start", "pause", "resume"]; // never two at once: they share one place
const LOOKS = ["like"]; // what may be asked by who only looks

export function controls(connection) {
  let verbs = [];
  let state = null;
  let mayControl = false;
  let isBlind = false;

  const allow = () => {
    const turn = TURNS.find((verb) => verbs.some((one) => one.verb === verb && one.when.includes(state?.state))) ?? "pause";
    for (const { verb, when, root } of verbs) {
      const isAllowed = mayControl || LOOKS.includes(verb);
      const why = !isAllowed ? "This link only looks on." : when.includes(state?.state) ? null : `Possible while the session is ${when.join(" or ")}.`;
      for (const part of root.querySelectorAll("button, input")) part.disabled = why != null;
      if (TURNS.includes(verb)) mark(root, "data-other", verb === turn ? null : "");
      mark(root, "title", why);
    }
  };

  const ask = async (verb, label, argument, confirm) => {
    if (confirm && !(await isSure(verb, label))) return;
    say($("said"), `${label} …`);
    const { ok, text } = await connection.ask(argument === undefined ? { ask: verb } : { ask: verb, argument });
    mark($("said"), "data-level", ok ? "ok" : "bad");
    say($("said"), verb === "like" && ok ? alike(argument, text) : text || (ok ? `${label}: done` : `${label}: refused`));
  };

  return {
    hello(hello) {
      mayControl = hello.rights === "control";
      isBlind = hello.session.blind;
      const key = JSON.stringify(hello.verbs);
      if ($("verbs").dataset.key !== key) {
        $("verbs").dataset.key = key; // what is being typed outlives a new hello
        verbs = hello.verbs.map((verb) => ({ ...verb, root: control(verb, ask) }));
        $("verbs").replaceChildren(...placed(verbs));
      }
      allow();
    },
    state(message) {
      const hasChanged = message.state !== state?.state;
      state = message;
      if (hasChanged) allow();
      files(message.ended, isBlind);
    },
    trial({ group, stimulus }) {
      const known = $("known-stimuli");
      const id = group || stimulus;
      if (!id || [...known.options].some(({ value }) => value === id)) return;
      known.prepend(make("option", { value: id }));
      if (known.options.length > 50) known.lastElementChild.remove();
    },
  };
}

/** What is pressed in a hurry stands in the bar, what names an image or a folder behind "more". */
function placed(verbs) {
  const roots = (isIn) => verbs.filter(isIn).map(({ root }) => root);
  const isTurn = ({ verb }) => TURNS.includes(verb);
  const isRare = ({ argument }) => argument === "id" || argument === "folder";
  const rare = roots(isRare);
  return [
    make("div", { class: "turn" }, roots(isTurn)),
    ...roots((one) => !isTurn(one) && !isRare(one)),
    rare.length ? make("details", { class: "more" }, make("summary", {}, "more"), make("div", { class: "more-body" }, rare)) : "",
  ];
}

function control({ verb, label, argument, confirm }, ask) {
  const kind = verb === "stop" ? "danger" : TURNS.includes(verb) ? "main" : "";
  const name = [label, KEYS[verb] && make("kbd", {}, KEYS[verb])];
  if (!argument) {
    const press = () => ask(verb, label, undefined, confirm);
    return make("div", { class: "verb" }, make("button", { type: "button", class: kind, "data-verb": verb, onclick: press }, name));
  }
  const input = make("input", {
    id: `argument-${verb}`, placeholder: HINTS[argument] ?? argument, "aria-label": `${label}: ${HINTS[argument] ?? argument}`,
    autocomplete: "off", maxlength: 1000, list: argument === "id" ? "known-stimuli" : null, required: true, spellcheck: "false",
  });
  const form = make("form", { class: "verb" }, input, make("button", { "data-verb": verb }, name));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    ask(verb, label, input.value.trim(), confirm);
    input.value = "";
    input.blur();
    form.closest("details")?.removeAttribute("open");
  });
  return form;
}

/** The answer to `like`: a list of [id, label, cosine] as JSON. */
const alike = (id, text) => `Like ${id}: ${JSON.parse(text).map(([, label, cosine]) => `${label} ${cosine.toFixed(2)}`).join(", ")}`;

function isSure(verb, label) {
  const dialog = $("confirm-dialog");
  say($("confirm-title"), `${label}?`);
  say($("confirm-text"), CONSEQUENCES[verb] ?? "This cannot be taken back.");
  say($("confirm-yes"), label);
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

/** In a blind session the server keeps them to itself. */
function files(ended, isBlind) {
  const place = $("files");
  const key = ended ? `${ended.end}${ended.report}` : "";
  if (place.dataset.key === key) return;
  place.dataset.key = key;
  const links = ended?.report && !isBlind ? [["/report.html", "report"], ["/files/summary.json", "summary"], ["/files/trials.csv", "trials"], ["/files/ledger.jsonl", "ledger"]] : [];
  place.replaceChildren(...links.map(([href, word]) => make("a", { href, target: "_blank", rel: "noopener" }, word)));
}
