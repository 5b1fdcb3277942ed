// What the reader liked and disliked: the history that recommendations go by. It lasts as long as the tab.

const listeners = new Set();
let key = "";
let taste = { liked: [], disliked: [] };

/** Go on with what was liked of this model in this tab. */
export function openTaste(modelHash) {
  key = `mmrec:${modelHash}`;
  const kept = sessionStorage.getItem(key);
  if (kept) taste = JSON.parse(kept);
}

export const history = () => taste;
export const onTaste = (listener) => listeners.add(listener);

export function opinionOf(id) {
  if (taste.liked.some((one) => one.id === id)) return "like";
  return taste.disliked.includes(id) ? "dislike" : null;
}

/** Like or dislike an item; the same again takes it back. Returns the opinion that it has now. */
export function setOpinion(id, opinion) {
  const next = opinionOf(id) === opinion ? null : opinion;
  change({
    liked: [...taste.liked.filter((one) => one.id !== id), ...(next === "like" ? [{ id, time: Math.floor(Date.now() / 1000) }] : [])],
    disliked: [...taste.disliked.filter((other) => other !== id), ...(next === "dislike" ? [id] : [])],
  });
  return next;
}

export function clearTaste() {
  change({ liked: [], disliked: [] });
}

function change(next) {
  taste = next;
  sessionStorage.setItem(key, JSON.stringify(taste));
  for (const listener of listeners) listener();
}
