/** Who is measured, in which session, as BIDS names it: asked before the start, put right until the end. */

import { $, make, mark, say } from "/static/dom.js";

export function sessionForm(connection) {
  const dialog = $("form-dialog");
  const form = $("session-form");
  const told = make("output", { class: "told" });
  let fields = [];
  let isNeeded = false; // the session waits for it, and Esc would leave a page that says nothing of why

  const send = async (start) => {
    const noNumber = [...form.elements].find(({ validity }) => validity?.badInput);
    if (noNumber) return noNumber.reportValidity(); // the browser would send it as nothing
    const { ok, text, fields: wrong = {} } = await connection.ask({ ask: "form", values: Object.fromEntries(new FormData(form)), start });
    for (const input of form.querySelectorAll("input")) {
      mark(input, "aria-invalid", input.name in wrong ? "true" : null);
      say(input.nextElementSibling, wrong[input.name] ?? "");
    }
    form.querySelector("[aria-invalid]")?.focus();
    const n = Object.keys(wrong).length;
    mark(told, "data-level", ok ? "ok" : "bad");
    say(told, n ? `Nothing is kept yet: ${n === 1 ? "one field needs" : `${n} fields need`} another value.` : text);
    if (ok && (start || !isNeeded)) dialog.close();
  };
  const open = () => {
    say(told, "");
    const keep = make("button", { type: "button", class: isNeeded ? "quiet" : "main", onclick: () => send(false) }, isNeeded ? "keep, do not start yet" : "Keep");
    const other = isNeeded
      ? make("button", { class: "main" }, "Start the session")
      : make("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, "close");
    form.replaceChildren(...fields.map(field), told, make("div", { class: "row" }, isNeeded ? [keep, other] : [other, keep]));
    say($("form-title"), isNeeded ? "Before the session starts" : "The session");
    say($("form-told"), `${isNeeded ? "The session waits for this. " : ""}It is kept with the session, and names its files when it is exported as BIDS.`);
    dialog.showModal();
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(isNeeded);
  });
  dialog.addEventListener("cancel", (event) => isNeeded && event.preventDefault());
  $("form-open").addEventListener("click", open);

  return {
    hello({ form: asked, rights }) {
      fields = asked?.fields ?? [];
      $("form-open").disabled = !fields.length || rights !== "control";
      const wasNeeded = isNeeded;
      isNeeded = Boolean(asked?.needed && rights === "control");
      if (isNeeded && !dialog.open) open();
      if (wasNeeded && !isNeeded && dialog.open) dialog.close();
    },
    state({ ended }) {
      if (ended) $("form-open").disabled = true;
    },
  };
}

function field({ name, label, value, help, required, type }) {
  const input = make("input", { name, value, required: Boolean(required), type: type === "number" ? "number" : "text", step: "any", autocomplete: "off", spellcheck: "false" });
  return make("label", { class: "field" }, make("span", {}, label, required && make("small", {}, " needed")), input, make("output"), make("small", { class: "dim" }, help));
}
