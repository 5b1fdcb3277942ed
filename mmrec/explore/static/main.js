// The page: opens the export, and shows the view that the address names.

import { ApiError, Export } from "./api.js";
import { showItem, showSearch, showStart } from "./browse.js";
import { showCompare } from "./compare.js";
import { byId, button, complain, h, icon } from "./dom.js";
import { fileOf, keepFile, receiveFiles } from "./files.js";
import { listenToKeys, showHelp } from "./keys.js";
import { markOnMap, showMap } from "./map.js";
import { startRail, youTab } from "./rail.js";
import { openTaste } from "./taste.js";

const LIVE_MS = 250; // a pause in typing after which the answers follow

const view = byId("view");
const query = byId("query");
const exported = new Export("");
let other = null;
let shown = null; // {address, trail, label, leave}
let asked = new AbortController();

/** Parts of the address behind #: {name, id, params, file, hash}. */
function addressOf(hash) {
  const [path, search = ""] = hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/");
  const params = new URLSearchParams(search);
  return { name, id: decodeURIComponent(rest.join("/")), params, file: name === "file" ? fileOf(Number(rest[0])) : null, hash: hash || "#/" };
}

const VIEWS = {
  "": showStart,
  search: showSearch,
  file: showSearch,
  item: showItem,
  map: showMap,
  compare: showCompare,
  you: () => "For you",
};

async function route() {
  const address = addressOf(location.hash);
  asked.abort();
  asked = new AbortController();
  const { signal } = asked;
  shown?.leave?.();
  if (shown) shown.scroll.set(shown.address.hash, scrollY);
  const trail = history.state?.trail ?? trailTo(address);
  history.replaceState({ trail }, "");
  const before = shown;
  shown = { address, trail, label: labelOf(address), leave: null, scroll: before?.scroll ?? new Map() };
  complain("");
  fillSearch(address);
  markTab(address.name);
  document.body.dataset.view = address.name || "start";
  view.setAttribute("aria-busy", "true");
  try {
    if (!(address.name in VIEWS)) throw new ApiError(`There is no view “${address.name}”; go to the start.`, 404);
    if (address.name === "file" && !address.file) throw new ApiError("The file is gone with the last page; choose it again.", 404);
    const current = shown;
    const label = await VIEWS[address.name]({ view, exported, other, signal, trail, onLeave: (leave) => { current.leave = leave; } }, address);
    if (label) current.label = label;
    document.title = `${current.label} · ${exported.about.name} · mmrec`;
    if (before) arrive(before, address);
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof ApiError)) throw error;
    view.querySelectorAll(".ghost").forEach((ghost) => ghost.remove());
    complain(address.file && error.status ? `${address.file.file.name}: ${error.message}` : error.message);
  }
  if (!signal.aborted) view.setAttribute("aria-busy", "false");
}

/** Items and searches that lead to an address; one that was passed before ends the way there. */
function trailTo(address) {
  if (!shown || address.name !== "item" || !["item", "search", "file", ""].includes(shown.address.name)) return [];
  const way = [...shown.trail, { hash: shown.address.hash, label: shown.label }];
  const passed = way.findIndex((step) => step.hash === address.hash);
  return passed < 0 ? way : way.slice(0, passed);
}

function labelOf({ name, id, params, file }) {
  if (name === "search") return `“${params.get("q")}”`;
  if (name === "file" && file) return `“${file.file.name}”`;
  return { "": "Start", map: "Map", compare: "Compare", you: "For you" }[name] ?? id;
}

function arrive(before, address) {
  const live = document.activeElement === query;
  if (before.address.hash === address.hash || live) return;
  scrollTo(0, shown.scroll.get(address.hash) ?? 0);
  view.querySelector("h1")?.focus({ preventScroll: true });
}

// The search box -------------------------------------------------------------------------------------------------

function fillSearch(address) {
  if (document.activeElement !== query) query.value = address.params.get("q") ?? "";
  const chip = byId("query-file");
  chip.hidden = !address.file;
  if (!address.file) return;
  chip.replaceChildren(icon(address.file.modality), h("span", {}, address.file.file.name),
    button(`Search without ${address.file.file.name}`, "close", { on: { click: () => go(query.value ? `#/search?${asQuery(query.value)}` : "#/") } }));
}

const asQuery = (text) => new URLSearchParams({ q: text }).toString();

/** Go to the search for what stands in the box; typing on replaces its address, so that back leaves it at once. */
function search(replace) {
  const text = query.value.trim();
  const { name, id, file } = shown.address;
  if (name === "compare") return go(text ? `#/compare?${asQuery(text)}` : "#/compare", replace);
  if (file) return go(`#/file/${id}${text ? `?${asQuery(text)}` : ""}`, replace);
  if (!text) return name === "search" ? go("#/", replace) : undefined;
  return go(`#/search?${asQuery(text)}`, replace && name === "search");
}

function go(hash, replace = false) {
  if (hash === location.hash) return;
  if (!replace) {
    location.hash = hash;
    return;
  }
  history.replaceState(history.state, "", hash);
  route();
}

function startSearch() {
  const about = exported.about;
  const media = about.queried_by.filter((name) => name !== "text");
  const called = { image: "a picture", audio: "a sound", video: "a clip" };
  const files = media.map((name) => called[name]).join(", ").replace(/, ([^,]*)$/, " or $1");
  if (!about.queried_by.includes("text")) {
    query.disabled = true;
    query.placeholder = media.length ? `This model reads no text; drop ${files}` : "This model reads neither texts nor media";
  } else query.placeholder = media.length ? `Search by text, or drop ${files}` : "Search by text";
  byId("file").accept = media.map((name) => `${name}/*`).join(",");
  document.querySelector(".attach").hidden = !media.length;
  let pause = null;
  query.addEventListener("input", () => {
    clearTimeout(pause);
    pause = setTimeout(() => search(true), LIVE_MS);
  });
  byId("search").addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(pause);
    search(false);
    query.blur();
  });
  receiveFiles((file) => {
    try {
      const number = keepFile(file, about);
      query.value = "";
      go(`#/file/${number}`);
    } catch (error) {
      complain(error.message);
    }
  });
}

// Tabs -----------------------------------------------------------------------------------------------------------

function startTabs() {
  const tab = (name, hash, ...content) => h("a", { href: hash, "data-tab": name }, ...content);
  byId("tabs").replaceChildren(
    tab("browse", "#/", icon("browse"), "Browse"),
    tab("map", "#/map", icon("map"), "Map"),
    ...(other ? [tab("compare", "#/compare", icon("compare"), "Compare")] : []),
    tab("you", "#/you", ...youTab()),
    button("Keys", "help", { class: "round help", on: { click: showHelp } }));
}

function markTab(name) {
  const current = ["map", "compare", "you"].includes(name) ? name : "browse";
  for (const tab of document.querySelectorAll("[data-tab]")) {
    if (tab.dataset.tab === current) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
}

async function start() {
  try {
    await exported.open();
    if (exported.about.compares) other = await new Export("/other").open();
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    complain(error.message);
    return;
  }
  openTaste(exported.about.model_hash);
  startTabs();
  startSearch();
  listenToKeys();
  byId("skip").addEventListener("click", (event) => {
    event.preventDefault();
    view.focus();
  });
  addEventListener("hashchange", route);
  history.scrollRestoration = "manual";
  document.querySelector(".brand").title = `${exported.about.name}: ${exported.about.num_items.toLocaleString("en")} items`;
  await Promise.all([startRail(exported, markOnMap), route()]);
}

start();
