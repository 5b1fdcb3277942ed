// The start, the answers to a search, and an item with its neighbours.

import { button, h, icon, plural, say } from "./dom.js";
import { badges, grid, opinionButtons, picture, player, shown, skeleton } from "./items.js";

const K = 24;
const MOST = 200;

/** Each view: (context, address) fills context.view. A context: {view, exported, other, signal, trail, files}. */
export async function showStart({ view, exported, signal }, { params }) {
  const seed = Number(params.get("seed") ?? 0);
  const { about } = exported;
  view.replaceChildren(
    heading("A spread of the catalogue", `${plural(about.num_items, "item")} of ${about.dataset}; these differ most. Open one to walk to its neighbours, like some to get recommendations.`,
      h("a", { class: "quiet", href: `#/?seed=${seed + 1}` }, icon("shuffle"), "Others")),
    about.has_media ? "" : h("p", { class: "hint" }, "Titles alone: pictures, sounds and clips come from the dataset. Start again with ", h("code", {}, "--data DATASET"), " to see them."),
    skeleton(K));
  const items = await exported.spread(K, seed, signal);
  view.lastChild.replaceWith(grid(items, about));
}

export async function showSearch(context, { params, file }) {
  const { view, exported, signal } = context;
  const text = params.get("q") ?? "";
  const what = [file && `“${file.file.name}”`, text && `“${text}”`].filter(Boolean).join(" and ");
  view.replaceChildren(heading(`Nearest to ${what}`), skeleton(K));
  await fill(context, (k) => exported.search(text, file, k, signal));
}

export async function showItem(context, { id }) {
  const { view, exported, signal, trail } = context;
  view.replaceChildren(skeleton(1));
  const [item] = await exported.cards([id], signal);
  view.replaceChildren(trailOf(trail, item.title), hero(item, context), heading("Nearest to it", "", null, "h2"), skeleton(12));
  await fill(context, (k) => exported.similar(id, k, signal));
  return item.title;
}

/** Put the answers in place of the skeleton, with a button for more. */
async function fill({ view, exported, signal }, ask, k = K) {
  const hits = await exported.withCards(await ask(k), signal);
  if (!hits.length) {
    view.lastChild.replaceWith(h("p", { class: "empty" }, "Nothing found."));
    say("Nothing found");
    return;
  }
  const found = grid(hits, exported.about);
  view.lastChild.replaceWith(found);
  say(plural(hits.length, "result"));
  if (hits.length < k || k >= MOST) return;
  const more = h("button", { type: "button", class: "quiet more", on: { click: async () => {
    more.disabled = true;
    const all = await exported.withCards(await ask(Math.min(2 * k, MOST)), signal);
    const fresh = [...grid(all.slice(hits.length), exported.about).children];
    found.append(...fresh);
    more.remove();
    fresh[0]?.querySelector(".title").focus();
  } } }, "More");
  view.append(more);
}

export function heading(title, line = "", action = null, tag = "h1") {
  return h("div", { class: "heading" }, h(tag, { tabindex: tag === "h1" ? "-1" : null }, title), action, line && h("p", {}, line));
}

/** How the reader came here. */
function trailOf(trail, title) {
  const steps = trail.slice(-5);
  return h("nav", { class: "trail", "aria-label": "Trail" },
    button("Back", "back", { class: "round", on: { click: () => window.history.back() } }),
    h("ol", {}, steps.map((step) => h("li", {}, h("a", { href: step.hash }, step.label))),
      h("li", { "aria-current": "page" }, title)));
}

/** Picture or clip in one frame, with a switch where there are both; the sound's player below it. */
function stage(item) {
  const frame = h("div", { class: "frame" });
  const [hasPicture, hasClip] = ["image", "video"].map((name) => item.media.includes(name));
  const show = (clip, plays) => frame.replaceChildren(clip ? player(item, "video", plays) : picture(item));
  const choices = [["image", "Picture"], ["video", "Clip"]].map(([name, label]) =>
    h("button", { type: "button", "aria-pressed": String(name === "image"), on: { click: (event) => {
      for (const choice of choices) choice.setAttribute("aria-pressed", String(choice === event.currentTarget));
      show(name === "video", true);
    } } }, icon(name === "video" ? "play" : "image"), label));
  show(hasClip && !hasPicture, false);
  return h("div", { class: "stage" }, frame,
    hasClip && hasPicture && h("div", { class: "switch", role: "group", "aria-label": "Show" }, choices),
    item.media.includes("audio") && player(item, "audio", false));
}

function hero(item, { exported, other }) {
  const facts = Object.entries(item.attributes).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, shown(value))));
  return h("section", { class: "hero", data: { id: item.item_id, title: item.title }, "aria-label": item.title },
    stage(item),
    h("div", { class: "about" },
      h("h1", { tabindex: "-1" }, item.title),
      h("p", { class: "id" }, item.item_id),
      item.text && h("p", { class: "text" }, item.text),
      facts.length > 0 && h("dl", {}, facts),
      badges(item, exported.about, true),
      h("div", { class: "acts" }, opinionButtons(item, true),
        h("a", { class: "quiet", href: `#/map?item=${encodeURIComponent(item.item_id)}` }, icon("map"), "On the map"),
        other && h("a", { class: "quiet", href: `#/compare?item=${encodeURIComponent(item.item_id)}` }, icon("compare"), "Compare"))));
}

