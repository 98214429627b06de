/** The few things that every panel does to the page; what is as it was is not touched. */

export const $ = (id) => document.getElementById(id);

/** An element with attributes, `on` handlers and children; a false or null child is none. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== false && child != null));
  return element;
}

export function makeSvg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Sets an attribute; null takes it away. */
export function mark(element, name, value) {
  if (value == null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

/** `render`, at most once a frame however often it is asked for; also where nobody looks. */
export function batched(render) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    const go = () => {
      asked = false;
      render();
    };
    if (document.hidden) setTimeout(go, 100);
    else requestAnimationFrame(go);
  };
}

/** A picture that may be missing: then its place stays, and says so. */
export function picture(url, alt, className = "thumb") {
  const image = make("img", { class: className, alt, draggable: "false", decoding: "async" });
  image.addEventListener("error", () => image.replaceWith(noPicture("no picture", className)));
  image.src = url;
  return image;
}

export const noPicture = (text, className = "thumb") => make("span", { class: `${className} none` }, text);

/** The picture of an image of the gallery; a session that decodes nothing has no gallery. */
export function thumbnail(id, label, className) {
  if (document.body.dataset.mode === "record") return noPicture("no picture", className);
  return picture(`/thumbnails/${encodeURIComponent(id)}`, label, className);
}

/** The colours of the theme, as a canvas needs them. */
export function colours() {
  const style = getComputedStyle(document.documentElement);
  const names = ["ink", "dim", "faint", "line", "accent", "ok", "warn", "bad", "well"];
  return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

/** Fits a canvas to its box at the screen's resolution; true where it has changed, and is empty. */
export function fit(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
  if (canvas.width === width && canvas.height === height) return false;
  canvas.width = width;
  canvas.height = height;
  return true;
}
