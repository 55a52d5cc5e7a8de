// One image on a canvas: window and level, zoom, pan, turns, lens, ruler, and the layers over it.
import {say} from "./words.js";

const MOST = 40, LEAST = 0.2; // zoom, of the image that fits the canvas
const LENS = 2.5, LENS_RADIUS = 110;

export class Viewer extends EventTarget {
  constructor(root, colours) {
    super();
    this.root = root;
    this.colours = colours;
    this.canvas = root.querySelector("canvas");
    this.context = this.canvas.getContext("2d", {alpha: false});
    this.scratch = document.createElement("canvas");
    this.scratchContext = this.scratch.getContext("2d");
    this.hud = Object.fromEntries(
      [...root.querySelectorAll("[data-hud]")].map(element => [element.dataset.hud, element]));
    this.tool = "window";
    this.options = {opacity: 0.55, contour: true};
    this.clear();
    this.pointers = new Map();
    new ResizeObserver(() => this.resize()).observe(root);
    this.listen();
  }

  clear() {
    this.plane = this.heat = this.structures = null;
    this.rulers = [];
    this.view = {zoom: 1, x: 0.5, y: 0.5, turns: 0, invert: false, low: 0, high: 1};
    this.redraw();
  }

  show(plane) {
    this.plane = plane;
    this.heat = this.structures = null;
    this.rulers = [];
    const first = plane.facts.windows[0];
    const [low, high] = first ? [first.low, first.high] : plane.facts.auto;
    this.view = {zoom: 1, x: 0.5, y: 0.5, turns: 0, invert: false, low, high};
    this.redraw();
  }

  // ---- geometry: pixels of the image to those of the canvas and back ----

  resize() {
    const box = this.root.getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.max(1, Math.round(box.width * ratio));
    this.canvas.height = Math.max(1, Math.round(box.height * ratio));
    this.ratio = ratio;
    this.redraw();
  }

  get fitting() {
    const {width, height, facts} = this.plane;
    const odd = this.view.turns % 2;
    const across = odd ? height * facts.aspect : width, down = odd ? width : height * facts.aspect;
    return Math.min(this.canvas.width / across, this.canvas.height / down);
  }

  get scale() {
    return this.fitting * this.view.zoom;
  }

  matrix({zoom = this.view.zoom, x = this.view.x, y = this.view.y, at = null} = {}) {
    const {width, height, facts} = this.plane;
    const scale = this.fitting * zoom;
    const to = at ?? {x: this.canvas.width / 2, y: this.canvas.height / 2};
    return new DOMMatrix()
      .translate(to.x, to.y)
      .rotate(90 * this.view.turns)
      .scale(scale, scale * facts.aspect)
      .translate(-x * width, -y * height);
  }

  toImage(x, y) {
    return this.matrix().inverse().transformPoint({x, y});
  }

  // ---- drawing ----

  redraw() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      this.draw();
    });
  }

  draw() {
    const {context, canvas} = this;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, canvas.width, canvas.height);
    if (this.plane) {
      const matrix = this.matrix();
      this.drawImage(context, matrix);
      this.drawLayers(context, matrix);
      this.drawNames(context, matrix);
      this.drawRulers(context, matrix);
      if (this.tool === "lens" && this.lens) this.drawLens(context);
    }
    this.drawHud();
    this.dispatchEvent(new Event("drawn"));
  }

  drawImage(context, matrix) {
    const {plane, view} = this;
    plane.prepare(view.low, view.high, view.invert !== plane.facts.inverted);
    const scale = Math.hypot(matrix.a, matrix.b);
    const k = plane.levelFor(scale);
    const level = plane.level(k), size = 2 ** k;
    // Only what is seen is made grey.
    const inverse = matrix.inverse();
    const corners = [[0, 0], [this.canvas.width, 0], [0, this.canvas.height],
      [this.canvas.width, this.canvas.height]].map(([x, y]) => inverse.transformPoint({x, y}));
    const xs = corners.map(p => p.x / size), ys = corners.map(p => p.y / size);
    const left = Math.max(0, Math.floor(Math.min(...xs)) - 1);
    const top = Math.max(0, Math.floor(Math.min(...ys)) - 1);
    const right = Math.min(level.width, Math.ceil(Math.max(...xs)) + 1);
    const bottom = Math.min(level.height, Math.ceil(Math.max(...ys)) + 1);
    const width = right - left, height = bottom - top;
    if (width <= 0 || height <= 0) return;
    if (this.scratch.width !== width || this.scratch.height !== height) {
      this.scratch.width = width;
      this.scratch.height = height;
      this.picture = this.scratchContext.createImageData(width, height);
      this.words = new Uint32Array(this.picture.data.buffer);
    }
    plane.paint(level, left, top, width, height, this.words);
    this.scratchContext.putImageData(this.picture, 0, 0);
    context.save();
    context.setTransform(matrix);
    context.beginPath();
    context.rect(0, 0, plane.width, plane.height);
    context.clip();
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "low"; // the level has about one value per pixel already
    context.drawImage(this.scratch, left * size, top * size, width * size, height * size);
    context.restore();
  }

  drawLayers(context, matrix) {
    const scale = Math.hypot(matrix.a, matrix.b) / (this.ratio || 1);
    context.save();
    context.setTransform(matrix);
    context.beginPath();
    context.rect(0, 0, this.plane.width, this.plane.height);
    context.clip();
    this.heat?.draw(context, scale, this.options);
    this.structures?.draw(context, scale);
    context.restore();
  }

  drawNames(context, matrix) {
    if (!this.structures) return;
    const taken = [];
    for (const part of this.structures.parts) {
      if (this.structures.hidden.has(part.name)) continue;
      const at = matrix.transformPoint(part), half = 4.2 * this.ratio * part.name.length;
      // A name gives way downwards where another one is.
      while (taken.some(p => Math.abs(p.y - at.y) < 15 * this.ratio && Math.abs(p.x - at.x) < p.half + half))
        at.y += 5 * this.ratio;
      taken.push({x: at.x, y: at.y, half});
      this.label(context, at, part.name, part.colour);
    }
    const line = this.structures.facts.lines?.thorax, ratio = this.structures.facts.measures.cardiothoracic_ratio;
    if (line && ratio !== null && !this.structures.hidden.has("lines")) {
      const [x, y] = line[0];
      const at = matrix.transformPoint({x, y});
      this.label(context, {x: at.x + 34 * this.ratio, y: at.y + 12 * this.ratio},
        `${say("anatomy.ctr")} ${ratio.toFixed(2)}`, "#fff");
    }
  }

  label(context, {x, y}, text, colour) {
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.font = `600 ${12 * this.ratio}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.lineJoin = "round";
    context.lineWidth = 3.5 * this.ratio;
    context.strokeStyle = "rgba(0,0,0,.85)";
    context.strokeText(text, x, y);
    context.fillStyle = colour;
    context.fillText(text, x, y);
  }

  drawRulers(context, matrix) {
    const rulers = this.measuring ? [...this.rulers, this.measuring] : this.rulers;
    for (const {from, to} of rulers) {
      const a = matrix.transformPoint(from), b = matrix.transformPoint(to);
      context.setTransform(1, 0, 0, 1, 0, 0);
      for (const [colour, thick] of [["rgba(0,0,0,.8)", 4], ["#ffe14d", 1.6]]) {
        context.strokeStyle = colour;
        context.lineWidth = thick * this.ratio;
        context.beginPath();
        context.moveTo(a.x, a.y);
        context.lineTo(b.x, b.y);
        const length = Math.hypot(b.x - a.x, b.y - a.y) || 1, tick = 6 * this.ratio;
        const nx = (-(b.y - a.y) / length) * tick, ny = ((b.x - a.x) / length) * tick;
        for (const p of [a, b]) {
          context.moveTo(p.x - nx, p.y - ny);
          context.lineTo(p.x + nx, p.y + ny);
        }
        context.stroke();
      }
      this.label(context, {x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 - 14 * this.ratio},
        this.lengthOf(from, to), "#ffe14d");
    }
  }

  lengthOf(from, to) {
    const {spacing, aspect} = this.plane.facts;
    const dx = to.x - from.x, dy = to.y - from.y;
    if (spacing) return say("ruler.mm", {n: Math.hypot(dy * spacing[0], dx * spacing[1]).toFixed(1)});
    return say("ruler.pixels", {n: Math.hypot(dy * aspect, dx).toFixed(0)});
  }

  drawLens(context) {
    const at = this.lens, radius = LENS_RADIUS * this.ratio;
    const point = this.toImage(at.x, at.y);
    const matrix = this.matrix({
      zoom: this.view.zoom * LENS, x: point.x / this.plane.width, y: point.y / this.plane.height, at,
    });
    context.save();
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.beginPath();
    context.arc(at.x, at.y, radius, 0, 2 * Math.PI);
    context.clip();
    context.fillStyle = "#000";
    context.fill();
    this.drawImage(context, matrix);
    this.drawLayers(context, matrix);
    context.restore();
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.beginPath();
    context.arc(at.x, at.y, radius, 0, 2 * Math.PI);
    context.strokeStyle = "#dfe7ee";
    context.lineWidth = 2 * this.ratio;
    context.stroke();
  }

  drawHud() {
    const {plane, view, hud} = this;
    if (!plane) {
      for (const element of Object.values(hud)) element.textContent = "";
      return;
    }
    const {slope, intercept} = plane.facts;
    const width = (view.high - view.low) * Math.abs(slope);
    const level = ((view.high + view.low) / 2) * slope + intercept;
    hud.window.textContent = say("hud.window", {width: round(width), level: round(level)});
    hud.zoom.textContent = say("hud.zoom", {n: Math.round(100 * this.scale)});
    const turned = view.turns ? say("hud.turned", {n: 90 * view.turns}) : "";
    hud.state.textContent = [turned, view.invert ? say("hud.inverted") : ""].filter(Boolean).join(" · ");
    const p = this.hover && this.toImage(this.hover.x, this.hover.y);
    const inside = p && p.x >= 0 && p.y >= 0 && p.x < plane.width && p.y < plane.height;
    hud.value.textContent = inside
      ? say("hud.value", {x: Math.floor(p.x), y: Math.floor(p.y),
        value: round(plane.valueAt(Math.floor(p.x), Math.floor(p.y)))})
      : "";
  }

  // ---- what changes the view ----

  change(changes) {
    if (!this.plane) return;
    Object.assign(this.view, changes);
    this.view.zoom = Math.min(MOST, Math.max(LEAST, this.view.zoom));
    this.view.x = Math.min(1, Math.max(0, this.view.x));
    this.view.y = Math.min(1, Math.max(0, this.view.y));
    this.redraw();
    this.dispatchEvent(new Event("changed"));
  }

  zoomBy(factor, at = {x: this.canvas.width / 2, y: this.canvas.height / 2}) {
    if (!this.plane) return;
    const before = this.toImage(at.x, at.y);
    this.view.zoom = Math.min(MOST, Math.max(LEAST, this.view.zoom * factor));
    const after = this.toImage(at.x, at.y);
    this.change({
      x: this.view.x + (before.x - after.x) / this.plane.width,
      y: this.view.y + (before.y - after.y) / this.plane.height,
    });
  }

  panBy(dx, dy) {
    if (!this.plane) return;
    const a = this.toImage(0, 0), b = this.toImage(dx, dy);
    this.change({x: this.view.x - (b.x - a.x) / this.plane.width,
      y: this.view.y - (b.y - a.y) / this.plane.height});
  }

  windowBy(dx, dy) {
    if (!this.plane) return;
    const {view, plane} = this;
    const [low, high] = plane.facts.auto;
    const step = (high - low) / 400;
    const brighter = view.invert !== plane.facts.inverted ? 1 : -1;
    const width = Math.max(step, view.high - view.low + dx * step);
    const level = (view.high + view.low) / 2 - brighter * dy * step;
    this.change({low: level - width / 2, high: level + width / 2});
  }

  actual() {
    if (this.plane) this.change({zoom: this.ratio / this.fitting});
  }

  reset() {
    if (!this.plane) return;
    const {turns: _} = this.view;
    const first = this.plane.facts.windows[0];
    const [low, high] = first ? [first.low, first.high] : this.plane.facts.auto;
    this.rulers = [];
    this.change({zoom: 1, x: 0.5, y: 0.5, turns: 0, invert: false, low, high});
  }

  // ---- mouse, pen and fingers ----

  listen() {
    const {canvas} = this;
    const place = event => {
      const box = canvas.getBoundingClientRect();
      return {x: (event.clientX - box.left) * this.ratio, y: (event.clientY - box.top) * this.ratio};
    };
    canvas.addEventListener("pointerdown", event => {
      if (!this.plane) return;
      canvas.setPointerCapture(event.pointerId);
      const at = place(event);
      this.pointers.set(event.pointerId, at);
      this.action = event.button === 1 ? "pan" : event.button === 2 ? "zoom" : this.tool;
      if (this.action === "ruler") {
        const point = this.toImage(at.x, at.y);
        this.measuring = {from: point, to: point};
      }
      if (this.action === "lens") this.lens = at;
      this.dragging = true;
      this.redraw();
    });
    canvas.addEventListener("pointermove", event => {
      const at = place(event), before = this.pointers.get(event.pointerId);
      this.hover = at;
      if (!before) {
        if (this.tool === "lens") this.lens = at;
        if (this.plane) this.redraw();
        return;
      }
      const dx = at.x - before.x, dy = at.y - before.y;
      if (this.pointers.size === 2) this.pinch(event.pointerId, at);
      else this.drag(dx / this.ratio, dy / this.ratio, at);
      this.pointers.set(event.pointerId, at);
    });
    const end = event => {
      if (!this.pointers.delete(event.pointerId)) return;
      if (this.pointers.size) return;
      if (this.measuring) {
        const {from, to} = this.measuring;
        if (Math.hypot(to.x - from.x, to.y - from.y) > 2) this.rulers.push(this.measuring);
        this.measuring = null;
      }
      this.dragging = false;
      this.redraw();
    };
    canvas.addEventListener("pointerup", end);
    canvas.addEventListener("pointercancel", end);
    canvas.addEventListener("pointerleave", () => {
      this.hover = this.lens = null;
      if (this.plane) this.redraw();
    });
    canvas.addEventListener("wheel", event => {
      if (!this.plane) return;
      event.preventDefault();
      this.zoomBy(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), place(event));
    }, {passive: false});
    canvas.addEventListener("contextmenu", event => event.preventDefault());
    canvas.addEventListener("dblclick", () => this.change({zoom: 1, x: 0.5, y: 0.5}));
  }

  drag(dx, dy, at) {
    if (this.action === "window") this.windowBy(dx, dy);
    else if (this.action === "pan") this.panBy(dx * this.ratio, dy * this.ratio);
    else if (this.action === "zoom") this.zoomBy(Math.exp(-dy * 0.008));
    else if (this.action === "ruler" && this.measuring) {
      this.measuring.to = this.toImage(at.x, at.y);
      this.redraw();
    } else if (this.action === "lens") {
      this.lens = at;
      this.redraw();
    }
  }

  pinch(id, at) {
    const [other] = [...this.pointers].filter(([key]) => key !== id).map(([, p]) => p);
    const before = this.pointers.get(id);
    const gap = p => Math.hypot(p.x - other.x, p.y - other.y);
    const middle = {x: (at.x + other.x) / 2, y: (at.y + other.y) / 2};
    this.zoomBy(gap(at) / Math.max(1, gap(before)), middle);
    this.panBy((at.x - before.x) / 2, (at.y - before.y) / 2);
  }
}

function round(value) {
  return Math.abs(value) >= 100 ? Math.round(value).toString() : Number(value.toPrecision(3)).toString();
}
