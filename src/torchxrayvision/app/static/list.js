// The list of images: thousands of them, of which only those in sight are there.
import {askBlob, askJson, imagePath} from "./api.js";
import {findingName, say} from "./words.js";

const ROW = 72; // pixels, as in app.css
const AHEAD = 4; // rows above and below that are there too
const AT_ONCE = 2; // thumbnails that are asked for at the same time

export class ImageList extends EventTarget {
  constructor(state) {
    super();
    this.state = state;
    this.box = document.getElementById("images");
    this.spacer = document.getElementById("spacer");
    this.search = document.getElementById("search");
    this.sort = document.getElementById("sort");
    this.filter = document.getElementById("filter");
    this.items = new Map();
    this.shown = [];
    this.rows = new Map();
    this.values = {findings: [], values: {}, above: {}};
    this.thumbnails = new Map();
    this.wanted = [];
    this.busy = 0;
    this.changes = -1;
    this.box.addEventListener("scroll", () => this.later(), {passive: true});
    new ResizeObserver(() => this.later()).observe(this.box);
    this.search.addEventListener("input", () => this.arrange());
    for (const element of [this.sort, this.filter])
      element.addEventListener("change", async () => {
        await this.loadValues();
        this.arrange();
      });
    this.box.addEventListener("click", event => {
      const row = event.target.closest("[role=option]");
      if (row) this.open(row.dataset.key);
    });
    this.box.addEventListener("keydown", event => this.key(event));
  }

  start() {
    this.fillChoices();
    return this.refresh();
  }

  fillChoices() {
    const findings = this.state.model.findings;
    const option = (value, text) => new Option(text, value);
    const sort = this.sort.value, filter = this.filter.value;
    this.sort.replaceChildren(option("order", say("list.byOrder")), option("name", say("list.byName")),
      ...findings.map(name => option(name, say("list.byFinding", {name: findingName(name)}))));
    this.filter.replaceChildren(
      ...["all", "unread", "read", "refused", "errors"].map(name => option(name, say(`list.${name}`))),
      ...findings.map(name => option(`=${name}`, say("list.above", {name: findingName(name)}))));
    if ([...this.sort.options].some(o => o.value === sort)) this.sort.value = sort;
    if ([...this.filter.options].some(o => o.value === filter)) this.filter.value = filter;
  }

  async refresh() {
    const answer = await askJson(`/api/images?model=${this.state.modelNumber}&since=${this.changes}`);
    this.listing = answer.listing;
    this.changes = answer.changes;
    if (answer.images) {
      this.items = new Map(answer.images.map((item, order) => [item.key, {...item, order}]));
      this.skipped = answer.skipped;
      await this.loadValues();
      this.arrange();
    }
    if (this.listing) setTimeout(() => this.refresh(), 400);
    return answer;
  }

  // States change when images are read, while the list itself stays.
  async reload() {
    this.changes = -1;
    return this.refresh();
  }

  get needsValues() {
    return !["order", "name"].includes(this.sort.value) || this.filter.value.startsWith("=");
  }

  async loadValues() {
    if (this.needsValues)
      this.values = await askJson(`/api/values?model=${this.state.modelNumber}`);
  }

  valueOf(item, finding) {
    return this.values.values[item.key]?.[this.values.findings.indexOf(finding)] ?? null;
  }

  arrange() {
    const words = this.search.value.trim().toLowerCase();
    const {value: filter} = this.filter, {value: sort} = this.sort;
    const states = {unread: "new", read: "read", refused: "refused", errors: "error"};
    this.shown = [...this.items.values()].filter(item => {
      if (words && !item.name.toLowerCase().includes(words)) return false;
      if (filter === "all") return true;
      if (filter.startsWith("=")) {
        const place = this.values.findings.indexOf(filter.slice(1));
        return this.values.above[item.key]?.[place] ?? false;
      }
      return item.state === states[filter];
    });
    if (sort === "name") this.shown.sort((a, b) => a.name.localeCompare(b.name, undefined, {numeric: true}));
    else if (sort !== "order")
      this.shown.sort((a, b) => (this.valueOf(b, sort) ?? -9) - (this.valueOf(a, sort) ?? -9));
    this.spacer.style.setProperty("height", `${this.shown.length * ROW}px`);
    for (const row of this.rows.values()) row.remove();
    this.rows.clear();
    this.draw();
    this.dispatchEvent(new Event("arranged"));
  }

  later() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = undefined;
      this.draw();
    });
  }

  draw() {
    const first = Math.max(0, Math.floor(this.box.scrollTop / ROW) - AHEAD);
    const last = Math.min(this.shown.length,
      Math.ceil((this.box.scrollTop + this.box.clientHeight) / ROW) + AHEAD);
    const seen = new Set();
    for (let i = first; i < last; i++) {
      const item = this.shown[i];
      seen.add(item.key);
      if (!this.rows.has(item.key)) {
        const row = this.row(item, i);
        this.rows.set(item.key, row);
        this.spacer.append(row);
      }
    }
    for (const [key, row] of this.rows)
      if (!seen.has(key)) {
        row.remove();
        this.rows.delete(key);
      }
    this.wanted = this.wanted.filter(key => seen.has(key));
    for (const key of seen)
      if (!this.thumbnails.has(key) && !this.wanted.includes(key)) this.wanted.push(key);
    this.mark();
    clearTimeout(this.settling);
    this.settling = setTimeout(() => this.fetchNext(), 60); // not what is only scrolled past
  }

  row(item, index) {
    const row = document.createElement("div");
    row.setAttribute("role", "option");
    row.id = `image-${item.key}`;
    row.dataset.key = item.key;
    row.className = `item ${item.state}`;
    row.style.setProperty("top", `${index * ROW}px`);
    row.setAttribute("aria-posinset", index + 1);
    row.setAttribute("aria-setsize", this.shown.length);
    const picture = document.createElement("canvas");
    picture.width = picture.height = 112;
    picture.setAttribute("aria-hidden", "true");
    const text = document.createElement("div");
    const name = document.createElement("span");
    name.className = "name";
    name.textContent = item.name;
    name.title = item.name;
    const state = document.createElement("span");
    state.className = "state";
    state.textContent = this.stateOf(item);
    if (item.message) state.title = item.message;
    text.append(name, state);
    row.append(picture, text);
    const kept = this.thumbnails.get(item.key);
    if (kept) paint(picture, kept);
    return row;
  }

  stateOf(item) {
    const sort = this.sort.value;
    const finding = this.filter.value.startsWith("=") ? this.filter.value.slice(1) : sort;
    const value = this.needsValues ? this.valueOf(item, finding) : null;
    const state = say(`list.state.${item.state}`);
    if (value !== null) return `${findingName(finding)} ${value.toFixed(3)}`;
    return item.message && item.state !== "read" ? `${state}: ${item.message}` : state;
  }

  mark() {
    for (const [key, row] of this.rows) {
      const current = key === this.state.currentKey;
      row.setAttribute("aria-selected", current);
      row.classList.toggle("other", key === this.state.otherKey && !current);
      if (current) this.box.setAttribute("aria-activedescendant", row.id);
    }
    if (!this.rows.has(this.state.currentKey)) this.box.removeAttribute("aria-activedescendant");
  }

  async fetchNext() {
    while (this.busy < AT_ONCE && this.wanted.length) {
      const key = this.wanted.shift();
      this.busy++;
      this.fetchOne(key).finally(() => {
        this.busy--;
        this.fetchNext();
      });
    }
  }

  async fetchOne(key) {
    let picture = "none";
    try {
      const {blob} = await askBlob(imagePath(key, "thumbnail"));
      picture = await createImageBitmap(blob);
    } catch { /* its row says what is wrong once it is opened */ }
    this.thumbnails.set(key, picture);
    if (this.thumbnails.size > 3000) this.thumbnails.delete(this.thumbnails.keys().next().value);
    const canvas = this.rows.get(key)?.querySelector("canvas");
    if (canvas) paint(canvas, picture);
  }

  paintThumbnail(canvas, key) {
    const kept = this.thumbnails.get(key);
    if (kept) paint(canvas, kept);
    else askBlob(imagePath(key, "thumbnail")).then(({blob}) => createImageBitmap(blob))
      .then(picture => paint(canvas, picture)).catch(() => {});
  }

  // ---- moving about ----

  step(by) {
    if (!this.shown.length) return;
    const at = this.shown.findIndex(item => item.key === this.state.currentKey);
    const next = Math.min(this.shown.length - 1, Math.max(0, at < 0 ? 0 : at + by));
    this.open(this.shown[next].key);
  }

  key(event) {
    const page = Math.max(1, Math.floor(this.box.clientHeight / ROW) - 1);
    const moves = {ArrowDown: 1, ArrowUp: -1, Home: -1e9, End: 1e9, PageDown: page, PageUp: -page};
    if (!(event.key in moves) || event.shiftKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    this.step(moves[event.key]);
  }

  open(key) {
    this.dispatchEvent(new CustomEvent("open", {detail: key}));
    this.bringIntoSight(key);
  }

  bringIntoSight(key) {
    const at = this.shown.findIndex(item => item.key === key);
    if (at < 0) return;
    const top = at * ROW, bottom = top + ROW;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (bottom > this.box.scrollTop + this.box.clientHeight)
      this.box.scrollTop = bottom - this.box.clientHeight;
    this.draw();
  }
}

function paint(canvas, picture) {
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (picture === "none") {
    context.strokeStyle = "#8899a6";
    context.lineWidth = 4;
    context.strokeRect(30, 30, 52, 52);
    context.beginPath();
    context.moveTo(30, 30);
    context.lineTo(82, 82);
    context.stroke();
    return;
  }
  const scale = canvas.width / Math.max(picture.width, picture.height);
  const width = picture.width * scale, height = picture.height * scale;
  context.drawImage(picture, (canvas.width - width) / 2, (canvas.height - height) / 2, width, height);
}
