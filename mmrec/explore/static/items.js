// An item as a card, as a row and in full; its media; like and dislike.

import { mediumOf, thumbnailOf } from "./api.js";
import { button, decimal, h, icon, say } from "./dom.js";
import { onTaste, opinionOf, setOpinion } from "./taste.js";

const PLAYED = ["video", "audio"];
const PICTURED = ["image", "video", "audio"];
const CALLED = { image: "picture", text: "text", audio: "sound", video: "clip" };
const MEDIA_ICONS = { image: "image", text: "text", audio: "audio", video: "video" };

export const hashOf = (id) => `#/item/${encodeURIComponent(id)}`;

/** "outdoors · 44.59": the attributes in one line. */
export function attributesLine(item) {
  return Object.values(item.attributes).map(shown).join(" · ");
}

export function shown(value) {
  return typeof value === "number" && !Number.isInteger(value) ? String(Number(value.toPrecision(6))) : String(value);
}

/** Small pictures of what went into the item's vector; "new" where the model has not been trained with the item. */
export function badges(item, exported, withNames = false) {
  const list = item.modalities.filter((name) => name !== "item_id").map((name) =>
    h("li", { class: "badge", title: CALLED[name] ?? name },
      icon(MEDIA_ICONS[name] ?? "vector"), h("span", { class: withNames || !(name in CALLED) ? null : "unseen" }, CALLED[name] ?? name)));
  if (exported.modalities.includes("item_id") && !item.modalities.includes("item_id")) {
    list.push(h("li", { class: "badge new", title: "Not in the training events: its vector comes from its content alone" }, "new"));
  }
  return h("ul", { class: "badges", "aria-label": "Made from" }, list);
}

/** The item's picture, or a tile with the first letters of its title. */
export function picture(item) {
  const tile = () => h("span", { class: "tile", "aria-hidden": "true" }, [...item.title.replace(/^(the|a|an) /i, "")].slice(0, 2).join(""));
  if (!item.media.some((name) => PICTURED.includes(name))) return tile();
  const isSound = !item.media.includes("image") && !item.media.includes("video");
  const img = h("img", { src: thumbnailOf(item.item_id), alt: "", loading: "lazy", decoding: "async", class: isSound ? "sound" : null });
  img.addEventListener("error", () => img.replaceWith(tile()));
  return img;
}

/** Like and dislike; pressed where the reader has done so. */
export function opinionButtons(item, withNames = false) {
  const make = (opinion, name) =>
    h("button", {
      type: "button", class: `opinion ${opinion}`, "data-opinion": opinion, title: `${name} (${opinion[0]})`,
      "aria-label": `${name} ${item.title}`, "aria-pressed": String(opinionOf(item.item_id) === opinion),
      on: { click: () => judge(item.item_id, item.title, opinion) },
    }, icon(opinion === "like" ? "like" : "dislike"), withNames && h("span", {}, name));
  return h("div", { class: "opinions" }, make("like", "Like"), make("dislike", "Dislike"));
}

export function judge(id, title, opinion) {
  const now = setOpinion(id, opinion);
  say(now ? `${now === "like" ? "Liked" : "Disliked"}: ${title}` : `Taken back: ${title}`);
}

onTaste(() => {
  for (const pressed of document.querySelectorAll("[data-opinion]")) {
    const id = pressed.closest("[data-id]").dataset.id;
    pressed.setAttribute("aria-pressed", String(opinionOf(id) === pressed.dataset.opinion));
  }
});

/** A player of one medium, which begins at once where `plays`. */
export function player(item, modality, plays) {
  const element = h(modality, {
    src: mediumOf(item.item_id, modality), controls: true, preload: "metadata", playsinline: modality === "video",
    "aria-label": `${CALLED[modality]} of ${item.title}`,
  });
  element.addEventListener("error", () =>
    element.replaceWith(h("p", { class: "unplayable" }, `This browser cannot play the ${CALLED[modality]}.`)));
  // A pause that comes before the first frame refuses the promise; nothing is wrong then.
  if (plays) element.play().catch((error) => { if (error.name !== "AbortError" && error.name !== "NotAllowedError" && error.name !== "NotSupportedError") throw error; });
  return element;
}

// One at a time: what begins to play silences the others.
document.addEventListener("play", (event) => {
  for (const other of document.querySelectorAll("audio, video")) if (other !== event.target) other.pause();
}, true);

/** Buttons that put a player over the card's picture. */
function playButtons(item, place) {
  const buttons = PLAYED.filter((name) => item.media.includes(name)).map((modality) =>
    button(`Play the ${CALLED[modality]} of ${item.title}`, modality === "video" ? "play" : "audio", {
      class: "play",
      on: { click: () => {
        place.querySelector(".player")?.remove();
        const close = button("Close the player", "close", { class: "play-end", on: { click: () => box.remove() } });
        const box = h("div", { class: `player ${modality}` }, player(item, modality, true), close);
        place.append(box);
        box.firstChild.focus();
      } },
    }));
  return buttons.length ? h("div", { class: "plays" }, buttons) : null;
}

/** A card. `to` is where its title leads. */
export function card(item, exported, to = hashOf(item.item_id)) {
  const media = h("div", { class: "media" }, picture(item));
  media.append(...[playButtons(item, media), opinionButtons(item)].filter(Boolean));
  const line = attributesLine(item);
  return h("article", { class: "card", "aria-label": item.title, data: { id: item.item_id, title: item.title } },
    media,
    h("a", { class: "title", href: to }, item.title),
    line && h("p", { class: "attributes", title: Object.entries(item.attributes).map(([name, value]) => `${name}: ${shown(value)}`).join("\n") }, line),
    h("div", { class: "foot" }, badges(item, exported),
      item.score === undefined ? null : h("span", { class: "score", title: "Score" }, decimal(item.score))));
}

/** A row of a narrow list: rank and how it has moved, small picture, title and a line, a mark, opinions or score. */
export function row(item, exported, { to = hashOf(item.item_id), mark = null, buttons = true, line = null, moved = null } = {}) {
  return h("li", { class: "row", data: { id: item.item_id, title: item.title } },
    h("span", { class: "rank", "aria-hidden": "true" }, item.rank, moved),
    h("span", { class: "small" }, picture(item)),
    h("div", { class: "words" },
      h("a", { class: "title", href: to }, item.title),
      h("p", { class: "attributes", title: line }, line ?? (attributesLine(item) || item.item_id))),
    mark,
    buttons ? opinionButtons(item) : h("span", { class: "score" }, decimal(item.score)));
}

export const grid = (items, exported, to) => h("div", { class: "grid" }, items.map((item) => card(item, exported, to?.(item.item_id))));

/** Grey cards where real ones will stand. */
export const skeleton = (number) => h("div", { class: "grid", "aria-hidden": "true" },
  Array.from({ length: number }, () => h("div", { class: "card ghost" }, h("div", { class: "media" }), h("i"), h("i"))));
