// Requests to the server of this page. Every failure is an ApiError with one line for the reader.

export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

const GONE = "The server does not answer. Start `mmrec explore` again, then reload this page.";

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(GONE, 0);
  }
  const body = await response.json().catch((error) => {
    if (error.name === "AbortError") throw error;
    return null;
  });
  if (!response.ok) throw new ApiError(body?.error ?? `The server answered ${response.status} ${response.statusText}`, response.status);
  if (body === null) throw new ApiError("The server's answer was cut off; try again.", response.status);
  return body;
}

const asJson = (body, signal) => ({
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(body),
  signal,
});

/** One export: the first has the routes at the root, the other below /other. */
export class Export {
  #cards = new Map();

  constructor(root) {
    this.root = root;
  }

  async open() {
    this.about = await ask(`${this.root}/about`);
    return this;
  }

  /** Hits nearest to an item, without it. */
  async similar(itemId, k, signal) {
    const answer = await ask(`${this.root}/similar`, asJson({ items: [itemId], k }, signal));
    return answer.results[0];
  }

  /** Hits nearest to a text, or to a file and a text taken together. `file`: {modality, file}, or null. */
  async search(text, file, k, signal) {
    if (!file) {
      const answer = await ask(`${this.root}/search`, asJson({ queries: [{ text }], k }, signal));
      return answer.results[0];
    }
    const form = new FormData();
    if (text) form.append("text", text);
    form.append(file.modality, file.file);
    form.append("k", k);
    const answer = await ask(`${this.root}/search`, { method: "POST", body: form, signal });
    return answer.results[0];
  }

  /** Hits for a history {liked: [{id, time}], disliked: [id]}; times are seconds since 1970. With why, if `explain`. */
  async recommend(history, k, signal, explain = false) {
    const asked = {
      items: history.liked.map((one) => one.id),
      times: history.liked.map((one) => one.time),
      disliked: history.disliked,
    };
    const answer = await ask(`${this.root}/recommend`, asJson({ histories: [asked], k, explain }, signal));
    return answer.results[0];
  }

  /** Cards of the given ids, in order; each is asked for once. */
  async cards(ids, signal) {
    const missing = [...new Set(ids)].filter((id) => !this.#cards.has(id));
    if (missing.length) {
      const answer = await ask(`${this.root}/cards`, asJson({ item_ids: missing }, signal));
      for (const card of answer.cards) this.#cards.set(card.item_id, card);
    }
    return ids.map((id) => this.#cards.get(id));
  }

  /** Hits with what their cards show. */
  async withCards(hits, signal) {
    const cards = await this.cards(hits.map((hit) => hit.item_id), signal);
    return hits.map((hit, place) => ({ ...cards[place], rank: hit.rank, score: hit.score, why: hit.why }));
  }

  async spread(k, seed, signal) {
    const answer = await ask(`${this.root}/spread?k=${k}&seed=${seed}`, { signal });
    return this.cards(answer.item_ids, signal);
  }

  map(signal) {
    return ask(`${this.root}/map`, { signal });
  }
}

export const thumbnailOf = (id) => `/thumbnail/${encodeURIComponent(id)}`;
export const mediumOf = (id, modality) => `/media/${encodeURIComponent(id)}/${modality}`;
