// "For you": what was liked and disliked, and recommendations that change with each of both.

import { ApiError } from "./api.js";
import { byId, button, h, icon, plural } from "./dom.js";
import { hashOf, picture, row } from "./items.js";
import { clearTaste, history, onTaste, setOpinion } from "./taste.js";

const K = 12;

/** Fill the rail now and at every change. `onHits` is told the recommended ids. */
export function startRail(exported, onHits) {
  const rail = byId("rail");
  const places = [["like", "Liked, oldest first"], ["dislike", "Disliked"]].map(([opinion, title]) => {
    const chips = h("ul", { class: "chips", "data-kind": opinion });
    return { opinion, chips, group: h("div", { class: "taste", hidden: true }, h("h3", {}, title), chips) };
  });
  const list = h("ol", { class: "rows" });
  const note = h("p", { class: "note" });
  const clear = h("button", { type: "button", class: "quiet", on: { click: clearTaste } }, "Clear");
  rail.replaceChildren(h("div", { class: "heading" }, h("h2", {}, "For you"), clear), ...places.map((one) => one.group), note, list);
  let asked = null;
  let before = null; // rank by id of the list before

  async function refresh() {
    asked?.abort();
    asked = new AbortController();
    const { signal } = asked;
    const taste = history();
    clear.hidden = !taste.liked.length && !taste.disliked.length;
    byId("count")?.replaceChildren(taste.liked.length ? String(taste.liked.length) : "");
    try {
      await showTaste(exported, places, taste, signal);
      if (!taste.liked.length) {
        before = null;
        list.replaceChildren();
        note.textContent = taste.disliked.length
          ? "Like something too: what you dislike steers recommendations, but cannot begin them."
          : "Like a few items. Recommendations appear here and change with every like and dislike.";
        onHits([]);
        return;
      }
      const hits = await exported.withCards(await exported.recommend(taste, K, signal, taste.liked.length > 1), signal);
      note.textContent = hits.length ? `Next, after ${plural(taste.liked.length, "item")} that you liked` : "Nothing is left to recommend.";
      refill(list, hits.map((hit) => row(hit, exported.about, { moved: moved(hit, before), line: because(hit) })), ".title");
      before = new Map(hits.map((hit) => [hit.item_id, hit.rank]));
      onHits(hits.map((hit) => hit.item_id));
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!(error instanceof ApiError)) throw error;
      list.replaceChildren();
      note.textContent = error.message;
    }
  }

  onTaste(refresh);
  return refresh();
}

/** The liked item without which the recommendation would lose most; null where none speaks for it, or one was liked. */
function because(hit) {
  const [first] = hit.why ?? [];
  return first?.item_id && first.drop > 0 ? `after ${first.title.split("\n")[0]}` : null;
}

/** New children in place of the old; focus that was in one of them stays at its place in the list. */
function refill(list, children, target) {
  const place = [...list.children].findIndex((child) => child.contains(document.activeElement));
  list.replaceChildren(...children);
  if (place >= 0) (list.children[Math.min(place, children.length - 1)]?.querySelector(target) ?? byId("rail")).focus();
}

/** How far a recommendation has come up or gone down since the list before. */
function moved(hit, before) {
  if (before === null) return null;
  const old = before.get(hit.item_id);
  if (old === undefined) return h("span", { class: "moved fresh", title: "It was not in the list before" }, "+");
  if (old === hit.rank) return null;
  const up = old > hit.rank;
  return h("span", { class: `moved ${up ? "up" : "down"}`, title: `It was at ${old}` }, `${up ? "↑" : "↓"}${Math.abs(old - hit.rank)}`);
}

async function showTaste(exported, places, taste, signal) {
  const all = [...taste.liked.map((one) => [one.id, "like"]), ...taste.disliked.map((id) => [id, "dislike"])];
  const cards = await exported.cards(all.map(([id]) => id), signal);
  for (const { opinion, group, chips } of places) {
    const shown = cards.filter((_, n) => all[n][1] === opinion);
    group.hidden = !shown.length;
    refill(chips, shown.map((item) => h("li", { title: item.title },
      h("a", { href: hashOf(item.item_id), "aria-label": item.title }, picture(item)),
      button(`Remove ${item.title}`, "close", { on: { click: () => setOpinion(item.item_id, opinion) } }))), "button");
  }
}

/** The tab of the phone's bar. */
export const youTab = () => [icon("like"), "For you", h("span", { id: "count", class: "count" })];
