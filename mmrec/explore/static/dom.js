// Elements from data. Text goes in as text, never as markup: titles are data.

const SVG = "http://www.w3.org/2000/svg";

/** An element. Props: class, data (an object), on (listeners by event), aria-* and other attributes; null is left out. */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (name === "data") Object.assign(element.dataset, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A drawing of icons.svg; it says nothing to those who listen, so its button needs a label. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `/static/icons.svg#${name}`);
  svg.append(use);
  return svg;
}

export function button(label, iconName, props = {}) {
  return h("button", { type: "button", "aria-label": label, title: label, ...props }, icon(iconName));
}

export const byId = (id) => document.getElementById(id);

/** One line to those who listen. */
export function say(line) {
  byId("spoken").textContent = line;
}

/** One line at the top of the page; an empty one takes it away. */
export function complain(line) {
  const message = byId("message");
  message.textContent = line;
  message.hidden = !line;
}

export const plural = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

/** As the field writes numbers between 0 and 1: three decimals. */
export const decimal = (value, digits = 3) => value.toFixed(digits).replace(/^(-?)0\./, "$1.");
