// The map: all items of the export in the plane of their first two principal components.

import { heading } from "./browse.js";
import { button, h, plural } from "./dom.js";
import { attributesLine, hashOf, picture } from "./items.js";
import { history, onTaste } from "./taste.js";
import { Plane } from "./plane.js";

let recommended = [];
let plane = null; // the map that is shown

/** Ring the recommended items, on the map that is shown and on later ones. */
export function markOnMap(ids) {
  recommended = ids;
  mark();
}

onTaste(mark);

function mark() {
  const taste = history();
  plane?.mark({ liked: taste.liked.map((one) => one.id), disliked: taste.disliked, recommended });
}

export async function showMap({ view, exported, signal, onLeave }, { params }) {
  view.replaceChildren(heading("Map"), h("div", { class: "map ghost" }));
  const data = await exported.map(signal);
  signal.throwIfAborted();
  const names = Object.keys(data.colours);
  const by = params.get("by") ?? names[0];
  const tip = h("div", { class: "tip", hidden: true });
  const canvas = h("canvas", { tabindex: "0", role: "application", "aria-label": "Map of the items. Arrow keys go from item to item, Enter opens, plus and minus zoom." });
  const spoken = h("p", { class: "unseen", role: "status" });
  const legend = h("ul", { class: "legend" });
  const choice = h("select", { on: { change: () => colour(choice.value) } },
    h("option", { value: "" }, "one colour"), names.map((name) => h("option", { value: name }, name)));
  const share = data.explained.map((value) => Math.round(100 * value));
  const sampled = data.shown < data.of ? `${plural(data.shown, "item")} drawn at random of ${data.of.toLocaleString("en")}` : plural(data.of, "item");
  view.replaceChildren(
    heading("Map", `${sampled}, by the first two principal components of their vectors (${share[0]} % and ${share[1]} % of the variance).`,
      h("label", { class: "choice" }, "Colour by ", choice)),
    legend,
    h("div", { class: "map" }, canvas, tip, spoken,
      h("div", { class: "zoom" }, button("Zoom in", "plus", { on: { click: () => plane.zoom(1.5) } }),
        button("Zoom out", "minus", { on: { click: () => plane.zoom(1 / 1.5) } }),
        button("Show all", "fit", { on: { click: () => plane.fit() } }))),
    h("p", { class: "note" }, h("i", { class: "sign liked" }), "liked", h("i", { class: "sign disliked" }), "disliked",
      h("i", { class: "sign recommended" }), "recommended"));

  const shownPlane = new Plane(canvas, data, {
    open: (id) => { location.hash = hashOf(id); },
    point: (id, x, y) => showTip(id, x, y),
  });
  plane = shownPlane;
  onLeave(() => {
    shownPlane.close();
    plane = null;
  });

  let asked = 0;
  async function showTip(id, x, y) {
    asked += 1;
    const mine = asked;
    if (id === null) {
      tip.hidden = true;
      return;
    }
    const [item] = await exported.cards([id], signal).catch((error) => {
      if (error.name === "AbortError") return [null];
      throw error;
    });
    if (mine !== asked || !item) return;
    tip.replaceChildren(h("span", { class: "small" }, picture(item)), h("span", {}, h("b", {}, item.title), h("span", { class: "attributes" }, attributesLine(item))));
    tip.hidden = false;
    const room = canvas.clientWidth - tip.offsetWidth - 8;
    tip.style.left = `${Math.max(8, Math.min(room, x + 14))}px`;
    tip.style.top = `${y + 14 + tip.offsetHeight > canvas.clientHeight ? y - 14 - tip.offsetHeight : y + 14}px`;
    spoken.textContent = item.title;
  }

  function colour(name) {
    choice.value = name;
    const how = data.colours[name] ?? null;
    shownPlane.colour(how);
    if (!how) legend.replaceChildren();
    else if (how.kind === "number") {
      const { low, high } = shownPlane.range;
      legend.replaceChildren(h("li", { class: "ramp" }, h("span", {}, String(low)), h("i"), h("span", {}, String(high))));
    } else legend.replaceChildren(...legendOf(how, (code) => shownPlane.lightUp(code)));
  }

  colour(names.includes(by) ? by : "");
  mark();
  if (params.has("item")) shownPlane.goTo(params.get("item"));
}

/** Names beside their colours; pressing one shows its items alone. */
function legendOf({ names, codes }, lightUp) {
  const counts = new Map();
  for (const code of codes) counts.set(code, (counts.get(code) ?? 0) + 1);
  const rows = names.map((name, code) => [name, code]);
  if (counts.has(-1)) rows.push(["others", -1]);
  const buttons = rows.map(([name, code]) => h("button", { type: "button", "aria-pressed": "false", on: { click: (event) => {
    const on = event.currentTarget.getAttribute("aria-pressed") !== "true";
    for (const one of buttons) one.setAttribute("aria-pressed", "false");
    event.currentTarget.setAttribute("aria-pressed", String(on));
    lightUp(on ? code : null);
  } } }, h("i", { class: `dot c${code < 0 ? "x" : code}` }), name, h("span", {}, counts.get(code).toLocaleString("en"))));
  return buttons.map((one) => h("li", {}, one));
}

