// Points on a canvas: drawn by colour, found by a grid, moved and zoomed by pointer and keys.

const FULL = 4095; // places run from 0 to it
const CELL = 64; // of the grid in which the nearest point is looked for
const REACH = 14; // pixels from a point within which it is meant
const MARGIN = 28;
const WAYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Plane {
  #canvas;
  #data;
  #listeners;
  #colours = null; // colour number of each point
  #only = null;
  #marks = { liked: [], disliked: [], recommended: [] };
  #at = -1; // the point that is meant
  #scale = 1;
  #shift = [0, 0];
  #due = 0;
  #cells = new Map();
  #placeOf = new Map();
  #closed = new AbortController();
  #pointers = new Map();
  #layer = document.createElement("canvas"); // the points alone: hovering draws rings over it
  #stale = true;

  /** listeners: open(id); point(id or null, x, y) in pixels of the canvas. */
  constructor(canvas, data, listeners) {
    this.#canvas = canvas;
    this.#data = data;
    this.#listeners = listeners;
    data.item_ids.forEach((id, n) => this.#placeOf.set(id, n));
    for (let n = 0; n < data.x.length; n += 1) {
      const key = this.#cellOf(data.x[n], data.y[n]);
      if (this.#cells.has(key)) this.#cells.get(key).push(n);
      else this.#cells.set(key, [n]);
    }
    const { signal } = this.#closed;
    const listen = (event, listener, more = {}) => canvas.addEventListener(event, listener, { signal, ...more });
    listen("pointerdown", (event) => this.#press(event));
    listen("pointermove", (event) => this.#move(event));
    listen("pointerup", (event) => this.#release(event));
    listen("pointercancel", (event) => this.#pointers.delete(event.pointerId));
    listen("pointerleave", () => this.#mean(-1));
    listen("wheel", (event) => this.#wheel(event), { passive: false });
    listen("keydown", (event) => this.#key(event));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw(), { signal });
    this.watch = new ResizeObserver(() => this.#draw());
    this.watch.observe(canvas);
  }

  close() {
    this.#closed.abort();
    this.watch.disconnect();
  }

  /** By an attribute as /map gives it; null: one colour for all. */
  colour(how) {
    this.#only = null;
    if (!how) this.#colours = null;
    else if (how.kind === "category") this.#colours = how.codes.map((code) => (code < 0 ? "x" : code));
    else {
      const known = how.values.filter((value) => value !== null).sort((a, b) => a - b);
      // From the 2nd to the 98th percentile: a few prices far off would leave one colour for all others.
      const low = known[Math.floor(0.02 * (known.length - 1))];
      const high = known[Math.ceil(0.98 * (known.length - 1))];
      this.range = { low, high };
      const step = (value) => Math.max(0, Math.min(7, Math.floor((8 * (value - low)) / (high - low || 1))));
      this.#colours = how.values.map((value) => (value === null ? "x" : `r${step(value)}`));
    }
    this.#draw();
  }

  /** Only the points of one code in colour; null: all. */
  lightUp(code) {
    this.#only = code === null ? null : code < 0 ? "x" : code;
    this.#draw();
  }

  mark(marks) {
    this.#marks = marks;
    this.#draw(false);
  }

  zoom(factor, x = this.#canvas.clientWidth / 2, y = this.#canvas.clientHeight / 2) {
    const scale = Math.max(1, Math.min(60, this.#scale * factor));
    const real = scale / this.#scale;
    this.#shift = [x - (x - this.#shift[0]) * real, y - (y - this.#shift[1]) * real];
    this.#scale = scale;
    this.#draw();
  }

  fit() {
    this.#scale = 1;
    this.#shift = [0, 0];
    this.#draw();
  }

  /** Bring an item to the middle and mean it; false where it is not drawn. */
  goTo(id) {
    const n = this.#placeOf.get(id);
    if (n === undefined) return false;
    this.fit();
    const [x, y] = this.#screen(n);
    this.#shift = [this.#canvas.clientWidth / 2 - x, this.#canvas.clientHeight / 2 - y];
    this.zoom(3);
    this.#mean(n);
    return true;
  }

  #cellOf(x, y) {
    return Math.floor(x / CELL) * 1000 + Math.floor(y / CELL);
  }

  #screen(n) {
    const unit = this.#unit();
    return [unit.left + this.#data.x[n] * unit.x, unit.top + (FULL - this.#data.y[n]) * unit.y];
  }

  #unit() {
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    return {
      x: ((width - 2 * MARGIN) / FULL) * this.#scale,
      y: ((height - 2 * MARGIN) / FULL) * this.#scale,
      left: MARGIN * this.#scale + this.#shift[0],
      top: MARGIN * this.#scale + this.#shift[1],
    };
  }

  /** The nearest point within reach of a place on the canvas, -1 where there is none. */
  #near(x, y) {
    const unit = this.#unit();
    const at = [(x - unit.left) / unit.x, FULL - (y - unit.top) / unit.y];
    const reach = [REACH / unit.x, REACH / unit.y];
    let best = -1;
    let least = REACH * REACH;
    for (let cx = Math.floor((at[0] - reach[0]) / CELL); cx <= Math.floor((at[0] + reach[0]) / CELL); cx += 1) {
      for (let cy = Math.floor((at[1] - reach[1]) / CELL); cy <= Math.floor((at[1] + reach[1]) / CELL); cy += 1) {
        for (const n of this.#cells.get(cx * 1000 + cy) ?? []) {
          if (this.#only !== null && this.#colours[n] !== this.#only) continue;
          const far = ((this.#data.x[n] - at[0]) * unit.x) ** 2 + ((this.#data.y[n] - at[1]) * unit.y) ** 2;
          if (far < least) [least, best] = [far, n];
        }
      }
    }
    return best;
  }

  #mean(n) {
    if (n === this.#at) return;
    this.#at = n;
    if (n < 0) this.#listeners.point(null, 0, 0);
    else this.#listeners.point(this.#data.item_ids[n], ...this.#screen(n));
    this.#canvas.style.cursor = n < 0 ? "grab" : "pointer";
    this.#draw(false);
  }

  #press(event) {
    this.#pointers.set(event.pointerId, { x: event.offsetX, y: event.offsetY, moved: 0 });
    this.#canvas.setPointerCapture(event.pointerId);
  }

  #move(event) {
    const held = this.#pointers.get(event.pointerId);
    if (!held) {
      this.#mean(this.#near(event.offsetX, event.offsetY));
      return;
    }
    const others = [...this.#pointers.values()].filter((one) => one !== held);
    const before = { ...held };
    Object.assign(held, { x: event.offsetX, y: event.offsetY });
    held.moved += Math.abs(held.x - before.x) + Math.abs(held.y - before.y);
    if (others.length) { // two fingers: the distance between them zooms
      const far = (one) => Math.hypot(one.x - others[0].x, one.y - others[0].y) || 1;
      this.zoom(far(held) / far(before), others[0].x, others[0].y);
    } else if (held.moved > 4) {
      this.#shift = [this.#shift[0] + held.x - before.x, this.#shift[1] + held.y - before.y];
      this.#mean(-1);
      this.#draw();
    }
  }

  #release(event) {
    const held = this.#pointers.get(event.pointerId);
    this.#pointers.delete(event.pointerId);
    if (!held || held.moved > 4) return;
    const n = this.#near(event.offsetX, event.offsetY);
    const isSecondTap = event.pointerType !== "mouse" && n !== this.#at; // a finger cannot hover: first what it is, then open
    this.#mean(n);
    if (n >= 0 && !isSecondTap) this.#listeners.open(this.#data.item_ids[n]);
  }

  #wheel(event) {
    event.preventDefault();
    this.zoom(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "+" || event.key === "=") this.zoom(1.5);
    else if (event.key === "-") this.zoom(1 / 1.5);
    else if (event.key === "0") this.fit();
    else if (event.key === "Enter" && this.#at >= 0) this.#listeners.open(this.#data.item_ids[this.#at]);
    else if (event.key in WAYS) this.#step(...WAYS[event.key]);
    else return;
    event.preventDefault();
  }

  /** Mean the next point in a direction, or the first one. */
  #step(x, y) {
    if (this.#at < 0) {
      this.#mean(this.#nearestTo(this.#canvas.clientWidth / 2, this.#canvas.clientHeight / 2));
      return;
    }
    const [fromX, fromY] = this.#screen(this.#at);
    let best = -1;
    let least = Infinity;
    for (let n = 0; n < this.#data.x.length; n += 1) {
      const [toX, toY] = this.#screen(n);
      const along = (toX - fromX) * x + (toY - fromY) * y;
      if (along < 1) continue;
      const cost = along + 3 * Math.abs((toX - fromX) * y + (toY - fromY) * x);
      if (cost < least) [least, best] = [cost, n];
    }
    if (best >= 0) this.#mean(best);
  }

  #nearestTo(x, y) {
    let best = 0;
    let least = Infinity;
    for (let n = 0; n < this.#data.x.length; n += 1) {
      const [toX, toY] = this.#screen(n);
      const far = Math.hypot(toX - x, toY - y);
      if (far < least) [least, best] = [far, n];
    }
    return best;
  }

  #draw(points = true) {
    this.#stale ||= points;
    if (this.#due || this.#closed.signal.aborted) return;
    this.#due = requestAnimationFrame(() => {
      this.#due = 0;
      this.#paint();
    });
  }

  #paint() {
    const canvas = this.#canvas;
    const ratio = Math.min(devicePixelRatio, 2);
    const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
    if (!width || !height) return;
    for (const one of [canvas, this.#layer]) if (one.width !== width || one.height !== height) {
      Object.assign(one, { width, height });
      this.#stale = true;
    }
    const style = getComputedStyle(canvas);
    const value = (name) => style.getPropertyValue(name).trim();
    const num = this.#data.x.length;
    const size = Math.max(1.4, Math.min(5, 90 / Math.sqrt(num))) * Math.min(2, Math.sqrt(this.#scale));
    if (this.#stale) this.#paintPoints(value, size, ratio);
    this.#stale = false;
    const pen = canvas.getContext("2d");
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.drawImage(this.#layer, 0, 0);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.#ring(pen, this.#marks.recommended, size + 4, value("--accent"), 1.75, []);
    this.#ring(pen, this.#marks.liked, size + 5, value("--accent"), 3.5, []);
    this.#ring(pen, this.#marks.disliked, size + 4, value("--bad"), 2, [3, 3]);
    if (this.#at >= 0) this.#ring(pen, [this.#data.item_ids[this.#at]], size + 3, value("--ink"), 2, []);
  }

  #paintPoints(value, size, ratio) {
    const pen = this.#layer.getContext("2d");
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const groups = new Map();
    for (let n = 0; n < this.#data.x.length; n += 1) {
      let colour = this.#colours ? this.#colours[n] : "accent";
      if (this.#only !== null && colour !== this.#only) colour = "off";
      if (groups.has(colour)) groups.get(colour).push(n);
      else groups.set(colour, [n]);
    }
    const order = [...groups.keys()].sort((a, b) => (a === "off" || a === "x" ? -1 : 0) - (b === "off" || b === "x" ? -1 : 0));
    for (const colour of order) {
      pen.fillStyle = value(`--map-${colour}`);
      pen.globalAlpha = colour === "off" ? 0.35 : 0.85;
      this.#fill(pen, groups.get(colour), size, width, height);
    }
    pen.globalAlpha = 1;
  }

  #fill(pen, points, size, width, height) {
    const unit = this.#unit();
    pen.beginPath();
    for (const n of points) {
      const x = unit.left + this.#data.x[n] * unit.x;
      const y = unit.top + (FULL - this.#data.y[n]) * unit.y;
      if (x < -size || y < -size || x > width + size || y > height + size) continue;
      if (size < 2) pen.rect(x - size, y - size, 2 * size, 2 * size); // many points: squares are drawn faster, and look alike
      else {
        pen.moveTo(x + size, y);
        pen.arc(x, y, size, 0, 2 * Math.PI);
      }
    }
    pen.fill();
  }

  #ring(pen, ids, radius, colour, width, dash) {
    pen.strokeStyle = colour;
    pen.lineWidth = width;
    pen.setLineDash(dash);
    for (const id of ids) {
      const n = this.#placeOf.get(id);
      if (n === undefined) continue;
      const [x, y] = this.#screen(n);
      pen.beginPath();
      pen.arc(x, y, radius, 0, 2 * Math.PI);
      pen.stroke();
    }
  }
}
