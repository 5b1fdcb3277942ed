// Two exports side by side: the same question, two lists, and what they share.

import { ApiError } from "./api.js";
import { heading } from "./browse.js";
import { byId, decimal, h, icon, plural } from "./dom.js";
import { picture, row } from "./items.js";
import { history } from "./taste.js";

const K = 20;
const CUTOFFS = [5, 10, 20];

const hashOf = (id) => `#/compare?item=${encodeURIComponent(id)}`;

export async function showCompare({ view, exported, other, signal }, { params }) {
  if (!other) throw new ApiError("There is nothing to compare with; start `mmrec explore` with --compare OTHER_EXPORT.", 404);
  const question = await questionOf(params, exported, signal);
  const columns = [exported, other].map((one) => h("section", { class: "column", "aria-label": one.about.name }, columnHead(one)));
  view.replaceChildren(
    heading("Two exports, one question", question ? "" : "Search, open an item in either list, or ask with what you liked.",
      h("a", { class: "quiet", href: "#/compare?taste=1", "aria-current": params.has("taste") ? "page" : null }, icon("like"), "By what you liked")),
    ...(question ? [question.shown] : []),
    h("div", { class: "columns" }, columns));
  if (!question) return;
  const lists = await Promise.all([exported, other].map((one) => answer(one, question.ask, signal)));
  signal.throwIfAborted();
  lists.forEach((list, place) => columns[place].append(columnBody(list, lists[1 - place], [exported, other][place])));
  if (lists.every((list) => list.hits)) question.shown.after(agreement(lists[0].hits, lists[1].hits));
}

/** What is asked: how it is shown, and how an export is asked it; null where nothing is asked yet. */
async function questionOf(params, exported, signal) {
  const id = params.get("item");
  const text = params.get("q");
  if (id) {
    const [item] = await exported.cards([id], signal);
    const link = h("a", { href: `#/item/${encodeURIComponent(id)}` }, item.title);
    return { shown: h("p", { class: "question" }, h("span", { class: "small" }, picture(item)), h("span", {}, "Nearest to ", link)), ask: (one) => one.similar(id, K, signal) };
  }
  if (text) return { shown: h("p", { class: "question" }, `Nearest to “${text}”`), ask: (one) => one.search(text, null, K, signal) };
  if (!params.has("taste")) return null;
  const taste = history();
  if (!taste.liked.length) throw new ApiError("You have liked nothing yet; like an item first.", 400);
  return { shown: h("p", { class: "question" }, `For who liked ${plural(taste.liked.length, "item")}`), ask: (one) => one.recommend(taste, K, signal) };
}

const columnHead = ({ about }) => h("header", {}, h("h2", { title: about.model_hash }, about.name),
  h("p", {}, `${plural(about.num_items, "item")}, ${about.dim} dimensions, ${about.modalities.map((name) => name.replace("item_id", "ids")).join(", ")}`));

/** {hits}, or {error}: one export may be unable to answer what the other can. */
async function answer(one, ask, signal) {
  try {
    return { hits: await one.withCards(await ask(one), signal) };
  } catch (error) {
    if (error instanceof ApiError) return { error: error.message };
    throw error;
  }
}

function columnBody({ hits, error }, { hits: others = [] }, one) {
  if (error) return h("p", { class: "note failed" }, error);
  if (!hits.length) return h("p", { class: "empty" }, "Nothing found.");
  const rankThere = new Map(others.map((hit) => [hit.item_id, hit.rank]));
  return h("ol", { class: "rows" }, hits.map((hit) => {
    const there = rankThere.get(hit.item_id);
    const mark = there && h("span", { class: "twin", title: `At ${there} in the other list` }, `also at ${there}`);
    const line = row(hit, one.about, { to: hashOf(hit.item_id), mark, buttons: false });
    if (there) line.classList.add("shared");
    for (const [event, lit] of [["pointerenter", true], ["pointerleave", false], ["focusin", true], ["focusout", false]]) {
      line.addEventListener(event, () => light(hit.item_id, lit));
    }
    return line;
  }));
}

function light(id, lit) {
  for (const line of byId("view").querySelectorAll(".columns .row")) if (line.dataset.id === id) line.classList.toggle("lit", lit);
}

/** Overlap@k: the share of the first k that both lists have. */
export function overlap(one, two, k) {
  const there = new Set(two.slice(0, k).map((hit) => hit.item_id));
  return one.slice(0, k).filter((hit) => there.has(hit.item_id)).length / k;
}

function agreement(one, two) {
  const cutoffs = CUTOFFS.filter((k) => k <= Math.min(one.length, two.length));
  const shared = overlap(one, two, K) * K;
  return h("dl", { class: "agreement" },
    h("div", {}, h("dt", {}, "shared"), h("dd", {}, `${Math.round(shared)} of ${Math.max(one.length, two.length)}`)),
    cutoffs.map((k) => h("div", {}, h("dt", {}, `overlap@${k}`), h("dd", {}, decimal(overlap(one, two, k), 2)))));
}
