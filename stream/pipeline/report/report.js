// Filters and sorts the cards of trials; the page's policy lets no other script run.
"use strict";
const form = document.getElementById("controls"), list = document.getElementById("cards");
if (form && list) {
  const all = [...list.children]; // of repeated images, each image has a heading
  const cards = all.filter((one) => one.tagName === "ARTICLE");
  const texts = new Map(cards.map((card) => [card,
    `${card.textContent} ${card.dataset.g} ${card.dataset.k}`.toLowerCase()]));
  const number = (card, key, missing) => Number(card.dataset[key] ?? missing);
  const orders = {
    time: (a, b) => number(a, "t", 0) - number(b, "t", 0),
    image: (a, b) => (a.dataset.g > b.dataset.g) - (a.dataset.g < b.dataset.g),
    sure: (a, b) => number(b, "p", -1) - number(a, "p", -1),
    rank: (a, b) => number(a, "r", 1e9) - number(b, "r", 1e9),
    late: (a, b) => number(b, "l", -1) - number(a, "l", -1),
  };
  let ordered = all.length > cards.length ? "image" : "time"; // a browser may recall another
  const show = () => {
    const { kind, text, order } = Object.fromEntries(new FormData(form));
    const words = text.trim().toLowerCase().split(/\s+/);
    let n = 0, heading = null;
    for (const one of all) {
      if (one.tagName !== "ARTICLE") {
        heading = one;
        heading.hidden = true;
        continue;
      }
      one.hidden = (kind && !one.dataset.k.split(" ").includes(kind))
        || !words.every((word) => texts.get(one).includes(word));
      n += !one.hidden;
      if (heading && !one.hidden) heading.hidden = false;
    }
    if (order !== ordered) {
      const asMade = order === "image" && all.length > cards.length;
      list.replaceChildren(...(asMade ? all : [...cards].sort(orders[order])));
      ordered = order;
    }
    form.elements.n.value = `${n} of ${cards.length}`;
  };
  form.hidden = false;
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  show();
}
addEventListener("beforeprint", () => {
  for (const one of document.querySelectorAll("details")) one.open = true;
});
