/** Who is measured, in which session: asked before the session starts, as BIDS names it. */

import { $, make, mark, say } from "/static/dom.js";

export function sessionForm(connection) {
  const dialog = $("form-dialog");
  const form = $("session-form");
  const told = make("output", { class: "told" });
  let shown = "";

  const send = async (start) => {
    const values = Object.fromEntries(new FormData(form));
    const { ok, text } = await connection.ask({ ask: "form", values, start });
    mark(told, "data-level", ok ? "ok" : "bad");
    say(told, text);
    if (ok && start) dialog.close();
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(true);
  });
  // The session waits for it: Esc would leave a page that says nothing of why it stands still.
  dialog.addEventListener("cancel", (event) => event.preventDefault());

  return {
    hello({ form: asked, rights }) {
      const isAsked = Boolean(asked?.needed && rights === "control");
      const key = JSON.stringify(asked?.fields ?? []);
      if (isAsked && shown !== key) {
        shown = key;
        const later = make("button", { type: "button", class: "quiet", onclick: () => send(false) }, "keep, do not start yet");
        form.replaceChildren(...asked.fields.map(field), told, make("div", { class: "row" }, later, make("button", { class: "main" }, "Start the session")));
      }
      say($("form-told"), "The session waits for this. It is kept with the session, and names its files when it is exported as BIDS.");
      if (isAsked && !dialog.open) dialog.showModal();
      if (!isAsked && dialog.open) dialog.close();
    },
  };
}

function field({ name, label, value, help, required, type }) {
  const input = make("input", { name, value, required: Boolean(required), type: type === "number" ? "number" : "text", step: "any", autocomplete: "off", spellcheck: "false" });
  return make("label", { class: "field" }, make("span", {}, label, required && make("small", {}, " needed")), input, make("small", { class: "dim" }, help));
}
