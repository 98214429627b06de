/** The settings that may change while the session runs, as a form made from their schema. */

import { $, make, mark, say } from "/static/dom.js";

export function settingsForm(connection) {
  const rows = new Map();
  return {
    hello({ settings, rights }) {
      const { schema, values } = settings ?? { schema: { properties: {} }, values: {} };
      const paths = Object.keys(schema.properties).filter((path) => schema.properties[path]["x-live"]);
      if ([...rows.keys()].join() !== paths.join()) {
        rows.clear();
        for (const path of paths) rows.set(path, row(connection, path, schema.properties[path]));
        $("settings-body").replaceChildren(...[...rows.values()].map(({ root }) => root));
        if (!paths.length) $("settings-body").append(make("p", { class: "empty" }, "This session has no setting that may change while it runs."));
      }
      for (const [path, one] of rows) one.show(values[path], rights === "control");
    },
  };
}

/** `reject.flat_uv` as the section, the name, and the unit, which is not said twice. */
function named(path, unit) {
  const at = path.lastIndexOf(".");
  const name = path.slice(at + 1).replace(unit ? new RegExp(`_${unit}$`, "i") : /$^/, "");
  const section = at > 0 && make("small", {}, `${path.slice(0, at)} `);
  return [section, name.replaceAll("_", " "), unit && make("small", {}, ` ${unit.replace("uV", "µV")}`)].filter(Boolean);
}

/** The alternatives of a schema without null, and whether null is one of them. */
function kindOf(schema) {
  const kinds = schema.anyOf ?? [schema];
  const some = kinds.find(({ type }) => type !== "null") ?? {};
  return { ...schema, ...some, isOptional: schema.nullable || kinds.some(({ type }) => type === "null") };
}

function inputFor(kind) {
  if (kind.enum) return make("select", {}, kind.isOptional && make("option", { value: "" }, "none"), kind.enum.map((value) => make("option", { value }, String(value))));
  if (kind.type === "boolean") return make("input", { type: "checkbox" });
  if (kind.type !== "number" && kind.type !== "integer") return make("input", { type: "text", placeholder: kind.isOptional ? "none" : "" });
  const step = kind.type === "integer" ? 1 : "any";
  return make("input", { type: "number", min: kind.minimum, max: kind.maximum, step, placeholder: kind.isOptional ? "none" : "" });
}

function valueOf(input, kind) {
  if (kind.type === "boolean") return input.checked;
  if (input.value === "") return null;
  return kind.type === "number" || kind.type === "integer" ? Number(input.value) : input.value;
}

function row(connection, path, schema) {
  const kind = kindOf(schema);
  const input = inputFor(kind);
  const save = make("button", { class: "quiet", disabled: true }, "set");
  const told = make("output", { class: "told" });
  let now = null;
  const label = make("label", {}, make("span", {}, ...named(path, kind.unit)), input);
  const root = make("form", { class: "setting", title: `${path}: ${schema.description ?? ""}` }, label, save, make("small", { class: "dim" }, schema.description ?? path), told);
  const show = (value) => {
    if (kind.type === "boolean") input.checked = Boolean(value);
    else input.value = value ?? "";
  };
  const differs = () => valueOf(input, kind) !== (now ?? null);
  const look = () => {
    save.disabled = !differs();
    mark(root, "data-changed", differs() ? "" : null);
  };
  input.addEventListener("input", look);
  root.addEventListener("submit", async (event) => {
    event.preventDefault();
    say(told, "…");
    const { ok, text } = await connection.ask({ ask: "set", path, value: valueOf(input, kind) });
    mark(told, "data-level", ok ? "ok" : "bad");
    say(told, text);
    if (ok) now = valueOf(input, kind);
    look();
  });
  return {
    root,
    show(value, mayControl) {
      const isUntouched = !differs() || now === null;
      now = value ?? null;
      if (isUntouched && document.activeElement !== input) show(value);
      input.disabled = !mayControl;
      look();
    },
  };
}
