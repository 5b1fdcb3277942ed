// The keyboard: / to search, arrows among cards, l and d to like and dislike, ? for help.

import { byId, button, h } from "./dom.js";
import { judge } from "./items.js";

const KEYS = [
  ["/", "search"],
  ["← ↑ → ↓", "from card to card, from point to point on the map"],
  ["Enter", "open"],
  ["l", "like, or take it back"],
  ["d", "dislike, or take it back"],
  ["Backspace", "back"],
  ["?", "these keys"],
];
const WAYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export function listenToKeys() {
  addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    const { target, key } = event;
    if (target.matches("input, textarea, select, audio, video, [contenteditable]")) {
      if (key === "Escape") target.blur();
      return;
    }
    if (document.querySelector("dialog[open]")) return;
    const item = target.closest?.("[data-id]");
    if (key === "/") byId("query").focus();
    else if (key === "?") showHelp();
    else if (key === "Backspace") history.back();
    else if (key in WAYS && move(target, ...WAYS[key])) ;
    else if ((key === "l" || key === "d") && item) judge(item.dataset.id, item.dataset.title, key === "l" ? "like" : "dislike");
    else return;
    event.preventDefault();
  });
}

/** Focus the nearest card in a direction; from outside the cards, the first. False where there is none. */
function move(target, x, y) {
  const cards = [...document.querySelectorAll("[data-id] > .title, .row .title")];
  const here = target.closest?.(".card, .row");
  if (!cards.length || target.closest?.("canvas")) return false;
  if (!here) {
    if (y <= 0 && x <= 0) return false;
    (document.querySelector("#view .title") ?? cards[0]).focus();
    return true;
  }
  const box = here.getBoundingClientRect();
  const middle = [box.x + box.width / 2, box.y + box.height / 2];
  let best = null;
  let least = Infinity;
  for (const other of cards) {
    const card = other.closest(".card, .row");
    if (card === here) continue;
    const to = card.getBoundingClientRect();
    const away = [to.x + to.width / 2 - middle[0], to.y + to.height / 2 - middle[1]];
    const along = away[0] * x + away[1] * y;
    const aside = Math.abs(away[0] * y) + Math.abs(away[1] * x);
    if (along < 4 || to.width === 0) continue;
    const cost = along + 4 * aside;
    if (cost < least) [least, best] = [cost, other];
  }
  best?.focus();
  best?.closest(".card, .row").scrollIntoView({ block: "nearest" });
  return best !== null;
}

export function showHelp() {
  const dialog = byId("help");
  dialog.replaceChildren(
    h("div", { class: "heading" }, h("h2", { id: "help-title" }, "Keys"),
      button("Close", "close", { class: "round", on: { click: () => dialog.close() } })),
    h("dl", {}, KEYS.map(([keys, what]) => h("div", {}, h("dt", {}, keys.split(" ").map((key) => h("kbd", {}, key))), h("dd", {}, what)))));
  dialog.showModal();
}
