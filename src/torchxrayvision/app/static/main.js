// The page: what is open, what is chosen, and what the parts tell each other.
import {askBytes, askJson, imagePath, Refusal, sendFile} from "./api.js";
import {ImageList} from "./list.js";
import {Plane} from "./plane.js";
import {icon, make, ReadingPanel} from "./reading.js";
import {chosenKinds, fillReport, saveObjects, savePicture, sendObjects} from "./takeaway.js";
import {Viewer} from "./viewer.js";
import {fillWords, findingName, loadWords, say} from "./words.js";

const $ = id => document.getElementById(id);
const IMAGE = /\.(png|jpe?g|jpe|jp[2cfhx]|j2[ck]|tiff?|bmp|webp|dcm|dicom|dic|ima|zip|gz)$|^[^.]*$/i;

const state = {
  about: null, panes: [], active: 0, two: false, linked: true, scales: {},
  options: {opacity: 0.55, contour: true},
  get pane() { return this.panes[this.active]; },
  get currentKey() { return this.pane?.key ?? null; },
  get otherKey() { return this.two ? this.panes[1 - this.active]?.key ?? null : null; },
  get modelNumber() { return this.pane?.model ?? 0; },
  get model() { return this.about.models[this.modelNumber]; },
};
let list, panel;

// ---- saying things ----

function tell(text) {
  $("status").textContent = text;
}

function alarm(text) {
  const box = make("div", {class: "alert"}, make("p", {text}),
    make("button", {class: "icon", "aria-label": say("error.dismiss"), title: say("error.dismiss"),
      onclick: () => box.remove()}, icon("close")));
  $("alerts").append(box);
  while ($("alerts").childElementCount > 4) $("alerts").firstElementChild.remove();
}

function problem(error, name = "") {
  const text = error instanceof Refusal || !(error instanceof TypeError) ? error.message
    : say("error.unexpected", {detail: error.name});
  alarm(name ? say("error.named", {name, text}) : text);
}

// ---- panes ----

function newPane(number) {
  const root = make("div", {class: "pane", "data-pane": number});
  const canvas = make("canvas", {tabindex: "0", role: "img"});
  const caption = make("div", {class: "caption"});
  root.append(canvas, caption, ...["state", "window", "zoom", "value"].map(name =>
    make("div", {class: `hud ${name}`, "data-hud": name, "aria-hidden": "true"})),
  make("div", {class: "mark-anyway"}), make("div", {class: "loading", hidden: ""}));
  $("panes").append(root);
  const pane = {
    number, root, key: null, name: "", model: 0, plane: null, findings: null, structures: null,
    viewer: new Viewer(root, state.about.colours),
    mark(text) { root.querySelector(".mark-anyway").textContent = text; },
  };
  canvas.setAttribute("aria-label", say(number ? "view.paneB" : "view.paneA"));
  root.addEventListener("pointerdown", () => activate(number), true);
  canvas.addEventListener("focus", () => activate(number));
  pane.viewer.addEventListener("changed", () => {
    showView();
    if (!state.two || !state.linked || linking) return;
    const other = state.panes[1 - number].viewer;
    linking = true;
    const {zoom, x, y} = pane.viewer.view;
    other.change({zoom, x, y});
    linking = false;
  });
  return pane;
}
let linking = false;

function activate(number) {
  if (state.active === number || !state.panes[number]) return;
  state.active = number;
  for (const pane of state.panes) pane.root.classList.toggle("active", pane.number === number);
  list.mark();
  showModel();
  showView();
  if (state.pane.key) panel.show(state.pane);
  else panel.showPick();
}

async function open(key, pane = state.pane) {
  const item = list.items.get(key);
  if (!item) return;
  const model = pane.model;
  Object.assign(pane, {key, name: item.name, plane: null, findings: null, structures: null});
  pane.mark("");
  pane.viewer.clear();
  const loading = pane.root.querySelector(".loading");
  loading.hidden = false;
  loading.textContent = say("view.loading", {name: item.name});
  pane.root.querySelector(".caption").textContent = item.name;
  pane.viewer.canvas.setAttribute("aria-label", say("view.canvas", {name: item.name}));
  $("empty").hidden = true;
  document.body.classList.add("has-image");
  list.mark();
  // Findings and pixels are asked for together, so that neither waits for the other.
  const reading = pane === state.pane ? panel.show(pane) : null;
  try {
    const facts = askJson(imagePath(key, "facts"));
    const pixels = askBytes(imagePath(key, "pixels"));
    pixels.catch(() => {}); // what is wrong with them is wrong with the facts too
    const plane = new Plane(await facts, await pixels);
    if (pane.key !== key || pane.model !== model) return;
    pane.plane = plane;
    pane.viewer.show(plane);
    loading.hidden = true;
    if (pane === state.pane) {
      showView();
      for (const name of ["anatomy", "header"])
        if ($(name).open) $(name).dispatchEvent(new Event("toggle"));
      if (panel.heatFor) panel.showHeat(panel.heatFor);
      showTake();
    }
  } catch (error) {
    if (pane.key !== key) return;
    loading.hidden = false;
    loading.textContent = error.message;
    if (pane === state.pane) panel.showBroken(error.detail || error.message);
  }
  await reading;
}

function setTwo(on) {
  state.two = on;
  document.body.classList.toggle("two", on);
  if (on && state.panes.length < 2) {
    const pane = newPane(1);
    state.panes.push(pane);
    pane.model = state.about.models.length > 1 ? 1 : 0;
    if (state.pane.key) {
      // Two networks: the same image in both. One: the next image, such as the one before.
      const at = list.shown.findIndex(item => item.key === state.pane.key);
      const next = state.about.models.length > 1 ? state.pane.key
        : (list.shown[at + 1] ?? list.shown[at - 1])?.key;
      if (next) open(next, pane);
    }
  }
  if (state.panes[1]) state.panes[1].root.hidden = !on;
  $("layout").setAttribute("aria-pressed", on);
  $("link").hidden = !on;
  if (!on) activate(0);
  for (const pane of state.panes) pane.root.classList.toggle("active", pane.number === state.active);
  list.mark();
}

// ---- the tools above the image ----

function setTool(tool) {
  for (const pane of state.panes) {
    pane.viewer.tool = tool;
    pane.viewer.lens = null;
    pane.root.dataset.tool = tool;
    pane.viewer.redraw();
  }
  for (const button of document.querySelectorAll("[data-tool][role=radio]")) {
    button.setAttribute("aria-checked", button.dataset.tool === tool);
    button.tabIndex = button.dataset.tool === tool ? 0 : -1;
  }
}

function showView() {
  const {viewer, plane} = state.pane;
  $("invert").setAttribute("aria-pressed", viewer.view.invert);
  const select = $("preset");
  if (select.dataset.key !== (plane ? state.pane.key : "")) fillPresets();
  const found = presets(plane).findIndex(([, low, high]) =>
    Math.abs(low - viewer.view.low) < 1e-6 && Math.abs(high - viewer.view.high) < 1e-6);
  select.value = found < 0 ? "own" : String(found);
}

function presets(plane) {
  if (!plane) return [];
  const {windows, auto, full} = plane.facts;
  return [
    ...windows.map(({name, low, high}, i) => [name || say("preset.header", {n: i + 1}), low, high]),
    [say("preset.auto"), ...auto], [say("preset.full"), ...full],
    [say("preset.dark"), ...ends(plane, 0.005, 0.6)], [say("preset.bright"), ...ends(plane, 0.4, 0.998)],
  ];
}

function ends(plane, first, last) {
  const flip = plane.facts.inverted;
  const low = plane.quantile(flip ? 1 - last : first), high = plane.quantile(flip ? 1 - first : last);
  return [low, Math.max(high, low + plane.facts.step)];
}

function fillPresets() {
  const {plane, key} = state.pane;
  $("preset").dataset.key = plane ? key : "";
  $("preset").replaceChildren(new Option(say("preset.own"), "own"),
    ...presets(plane).map(([name], i) => new Option(name, String(i))));
  $("preset").disabled = !plane;
}

function showModel() {
  $("model-label").hidden = state.about.models.length < 2;
  $("model").value = String(state.modelNumber);
  $("demonstration").hidden = !state.model.demonstration;
  $("take-csv").href = `/api/table.csv?model=${state.modelNumber}`;
}

function showTake() {
  const dicom = state.pane.plane?.facts.format === "dicom";
  const can = dicom && state.about.dicomResults;
  $("take-dicom").disabled = !can;
  $("take-note").textContent = can ? ""
    : dicom ? say("take.package", { command: state.about.installResults }) : say("take.onlyDicom");
}

// ---- images in ----

async function addFiles(files) {
  const all = [...files];
  if (!all.length) return;
  let first = null, count = 0;
  for (const [n, file] of all.entries()) {
    tell(say("status.adding", {name: file.name, n: n + 1, total: all.length}));
    try {
      const {images} = await sendFile(file);
      first ??= images[0];
      count += images.length;
      if (first && count === images.length) { // the first one is looked at while others arrive
        await list.reload();
        open(first.key).catch(problem);
        showTab("view");
      }
    } catch (error) {
      problem(error, file.name);
    }
  }
  await list.reload();
  if (first) list.bringIntoSight(first.key);
  tell(count === 1 ? say("status.addedOne", {name: first.name}) : say("status.added", {n: count}));
}

async function filesOf(transfer) {
  const entries = [...transfer.items].map(item => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some(entry => entry.isDirectory)) return [...transfer.files];
  const found = [];
  const walk = async entry => {
    if (entry.name.startsWith(".")) return;
    if (entry.isFile) {
      const file = await new Promise((give, fail) => entry.file(give, fail));
      if (IMAGE.test(file.name)) found.push(file);
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const some = await new Promise((give, fail) => reader.readEntries(give, fail));
      if (!some.length) return;
      for (const each of some) await walk(each);
    }
  };
  for (const entry of entries) await walk(entry);
  return found;
}

async function removeCurrent() {
  const {key, name} = state.pane;
  if (!key) return;
  const at = list.shown.findIndex(item => item.key === key);
  await askJson(`/api/images/${key}`, {method: "DELETE"});
  await list.reload();
  for (const pane of state.panes.filter(p => p.key === key)) {
    Object.assign(pane, {key: null, name: "", plane: null, findings: null, structures: null});
    pane.mark("");
    pane.viewer.clear();
    pane.root.querySelector(".caption").textContent = "";
    pane.root.querySelector(".loading").hidden = true;
  }
  tell(say("status.removed", {name}));
  const next = list.shown[Math.min(at, list.shown.length - 1)];
  if (next) return open(next.key);
  panel.showPick();
  $("empty").hidden = false;
  document.body.classList.remove("has-image");
}

// ---- reading everything ----

function showCount() {
  const total = list.items.size, unread = [...list.items.values()].filter(i => i.state === "new").length;
  $("count").textContent = list.listing ? say("list.listing", {n: total})
    : list.shown.length || !total ? say("list.count", {shown: list.shown.length, total}) : say("list.none");
  $("read-all").hidden = !reading && (unread < 2);
  if (!reading) $("read-all-button").textContent = say("list.readAll", {n: unread});
}
let reading = false;

async function watchReading() {
  const job = await askJson("/api/read");
  if (reading && !job.running) {
    reading = false;
    tell(say("status.readAll"));
    await list.reload();
  }
  reading = job.running;
  $("read-all-progress").hidden = !reading;
  if (!reading) return showCount();
  $("read-all-progress").max = Math.max(1, job.total);
  $("read-all-progress").value = job.done;
  $("read-all-button").textContent = say("list.stop", job);
  if (Date.now() - (watchReading.last ?? 0) > 3000) {
    watchReading.last = Date.now();
    await list.reload();
  }
  setTimeout(() => watchReading().catch(problem), 500);
}

async function toggleReading() {
  await askJson(`/api/read?model=${state.modelNumber}`, {method: reading ? "DELETE" : "POST"});
  if (!reading) watchReading().catch(problem);
}

// ---- dialogs ----

function fillAbout() {
  const {about} = state, body = $("about-body");
  const facts = rows => make("dl", {}, ...rows.filter(([, value]) => value).flatMap(([name, value]) =>
    [make("dt", {text: say(`about.${name}`)}), make("dd", {text: value})]));
  const median = values => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];
  const models = about.models.map(m => make("section", {}, make("h3", {text: m.name}),
    ...(m.demonstration ? [make("p", {class: "doubt", text: say("about.demonstration")})] : []),
    ...(m.own ? [make("p", {class: "doubt", text: say("about.own")})] : []),
    facts([["sha", m.sha256], ["training", (m.trainedOn ?? []).join(", ")],
      ["resolution", m.resolution && say("about.resolutionValue", {n: m.resolution})],
      ["outputs", m.findings.map(findingName).join(", ")],
      ["auroc", Object.entries(m.metrics ?? {}).map(([test, values]) => say("about.aurocValue", {
        test, n: median(Object.values(values)).toFixed(2), count: Object.keys(values).length})).join("; ")],
      ["licence", m.licence], ["terms", m.terms], ["reference", m.reference]])));
  body.replaceChildren(make("p", {class: "doubt", text: say("about.notDevice")}),
    make("h3", {text: say("about.limits")}),
    make("ul", {}, ...["limit1", "limit2", "limit3", "limit4"].map(name => make("li", {text: say(`about.${name}`)}))),
    ...models,
    ...(about.segmenter ? [make("section", {}, make("h3", {text: `${say("about.segmenter")}: ${about.segmenter.name}`}),
      facts([["training", (about.segmenter.trainedOn ?? []).join(", ")], ["licence", about.segmenter.licence],
        ["terms", about.segmenter.terms], ["reference", about.segmenter.reference]]))] : []),
    facts([["version", `TorchXRayVision ${about.version}`]]));
}

function fillKeys() {
  const mouse = [["drag", "dragDo"], ["right", "rightDo"], ["middle", "middleDo"], ["double", "doubleDo"]];
  const rows = [...mouse.map(([a, b]) => [say(`keys.${a}`), say(`keys.${b}`)]),
    ...Object.entries(KEY_ROWS()).map(([key, text]) => [key, text])];
  $("keys-body").replaceChildren(make("dl", {class: "keys"}, ...rows.flatMap(([key, text]) =>
    [make("dt", {}, make("kbd", {text: key})), make("dd", {text})])));
}
let words;
const KEY_ROWS = () => words.keys.rows;

// ---- keys ----

function keyed(event) {
  const {target} = event;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (document.querySelector("dialog[open]")) return;
  if (target.matches("input:not([type=checkbox]):not([type=range]), select, textarea")) return;
  const {viewer} = state.pane, arrows = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
  if (event.key in arrows) {
    if (target.matches("input, summary, [role=radio]") || target.closest("[role=listbox]")) return;
    const [x, y] = arrows[event.key];
    if (event.shiftKey) viewer.windowBy(12 * x, 12 * y);
    else if (target === viewer.canvas || target === document.body) viewer.panBy(-60 * x, -60 * y);
    else return;
    event.preventDefault();
    return;
  }
  const actions = {
    w: () => setTool("window"), p: () => setTool("pan"), z: () => setTool("zoom"),
    m: () => setTool("ruler"), g: () => setTool("lens"), i: () => $("invert").click(),
    r: () => viewer.change({turns: (viewer.view.turns + (event.shiftKey ? 3 : 1)) % 4}),
    f: () => $("fit").click(), 1: () => viewer.actual(), 0: () => viewer.reset(),
    "+": () => viewer.zoomBy(1.25), "=": () => viewer.zoomBy(1.25), "-": () => viewer.zoomBy(0.8),
    PageDown: () => list.step(1), PageUp: () => list.step(-1),
    h: () => panel.toggleHeat(), c: () => $("contour").click(),
    "[": () => opacity(-10), "]": () => opacity(10), a: () => panel.toggleStructures(state.pane),
    d: () => setTwo(!state.two), l: () => $("link").click(),
    x: () => state.two && state.panes[1 - state.active].viewer.canvas.focus(),
    o: () => $("chooser").click(), Delete: () => removeCurrent().catch(problem),
    "?": () => $("keys").showModal(),
  };
  const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action) return;
  event.preventDefault();
  action();
}

function opacity(by) {
  $("opacity").value = Number($("opacity").value) + by;
  panel.setOptions();
}

function showTab(name) {
  document.body.dataset.tab = name;
  for (const button of document.querySelectorAll(".tabs button"))
    button.setAttribute("aria-pressed", button.dataset.tab === name);
}

function setTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  try {
    if (theme) localStorage.setItem("theme", theme);
  } catch { /* a browser that keeps nothing forgets the choice */ }
}

// ---- wiring ----

function wire() {
  for (const id of ["add", "empty-add"]) $(id).addEventListener("click", () => $("chooser").click());
  $("chooser").addEventListener("change", event => {
    const files = [...event.target.files];
    event.target.value = "";
    addFiles(files).catch(problem);
  });
  $("empty-example").addEventListener("click", async () => {
    tell(say("findings.loading"));
    try {
      const {images} = await askJson("/api/examples", {method: "POST"});
      await list.reload();
      await open(images[0].key);
    } catch (error) {
      problem(error);
    }
  });
  addEventListener("dragover", event => {
    if (![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();
    $("drop").hidden = false;
  });
  addEventListener("dragleave", event => {
    if (!event.relatedTarget) $("drop").hidden = true;
  });
  addEventListener("drop", async event => {
    event.preventDefault();
    $("drop").hidden = true;
    addFiles(await filesOf(event.dataTransfer)).catch(problem);
  });
  addEventListener("paste", event => {
    if (event.clipboardData?.files.length) addFiles(event.clipboardData.files).catch(problem);
  });
  for (const button of document.querySelectorAll("[data-tool][role=radio]"))
    button.addEventListener("click", () => setTool(button.dataset.tool));
  document.querySelector("[role=radiogroup]").addEventListener("keydown", event => {
    const by = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
    if (!by) return;
    const all = [...document.querySelectorAll("[data-tool][role=radio]")];
    const next = all[(all.indexOf(event.target) + by + all.length) % all.length];
    setTool(next.dataset.tool);
    next.focus();
    event.preventDefault();
  });
  const view = action => () => state.pane.plane && action(state.pane.viewer);
  $("invert").addEventListener("click", view(v => v.change({invert: !v.view.invert})));
  $("rotate").addEventListener("click", view(v => v.change({turns: (v.view.turns + 1) % 4})));
  $("fit").addEventListener("click", view(v => v.change({zoom: 1, x: 0.5, y: 0.5})));
  $("actual").addEventListener("click", view(v => v.actual()));
  $("reset").addEventListener("click", view(v => v.reset()));
  $("preset").addEventListener("change", event => {
    const [, low, high] = presets(state.pane.plane)[Number(event.target.value)] ?? [];
    if (low !== undefined) state.pane.viewer.change({low, high});
  });
  $("layout").addEventListener("click", () => setTwo(!state.two));
  $("link").addEventListener("click", () => {
    state.linked = !state.linked;
    $("link").setAttribute("aria-pressed", state.linked);
  });
  $("remove").addEventListener("click", () => removeCurrent().catch(problem));
  $("model").addEventListener("change", event => {
    state.pane.model = Number(event.target.value);
    state.pane.findings = null;
    panel.hideHeat();
    list.fillChoices();
    list.reload().catch(problem);
    showModel();
    if (state.pane.key) panel.show(state.pane).catch(problem);
  });
  $("read-all-button").addEventListener("click", () => toggleReading().catch(problem));
  $("take-png").addEventListener("click", () => state.pane.plane &&
    savePicture(state.pane, name => tell(say("status.saved", {name}))));
  $("take-report").addEventListener("click", () => {
    if (!state.pane.plane) return;
    fillReport(state.pane, state.about);
    window.print();
  });
  const objects = action => async () => {
    if (!chosenKinds().length) return void ($("take-note").textContent = say("take.pick"));
    $("take-note").textContent = say("take.making");
    try {
      $("take-note").textContent = await action(state.pane, panel.heatFor);
    } catch (error) {
      $("take-note").textContent = "";
      problem(error);
    }
  };
  $("take-objects").addEventListener("click",
    objects(async (pane, finding) => say("status.saved", {name: await saveObjects(pane, finding)})));
  $("take-send").addEventListener("click",
    objects(async (pane, finding) => say("take.sent", {n: await sendObjects(pane, finding)})));
  $("theme").addEventListener("click", () => {
    const dark = getComputedStyle(document.documentElement).colorScheme.includes("dark") &&
      !getComputedStyle(document.documentElement).colorScheme.includes("light");
    setTheme(isDark() && !dark ? "light" : isDark() ? "light" : "dark");
  });
  $("about-button").addEventListener("click", () => $("about").showModal());
  $("keys-button").addEventListener("click", () => $("keys").showModal());
  for (const button of document.querySelectorAll("[data-close]"))
    button.addEventListener("click", () => button.closest("dialog").close());
  for (const button of document.querySelectorAll(".tabs button"))
    button.addEventListener("click", () => showTab(button.dataset.tab));
  addEventListener("keydown", keyed);
  list.addEventListener("open", event => open(event.detail).catch(problem));
  list.addEventListener("arranged", showCount);
  panel.addEventListener("open", event => open(event.detail).catch(problem));
  panel.addEventListener("problem", event => problem(event.detail));
  panel.addEventListener("options", () => {
    for (const pane of state.panes) {
      pane.viewer.options = state.options;
      pane.viewer.redraw();
    }
  });
  panel.addEventListener("read", () => {
    clearTimeout(wire.later); // several images that are looked through need one new list
    wire.later = setTimeout(() => list.reload().catch(problem), 400);
  });
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

async function start() {
  history.replaceState(null, "", "/"); // a token that was used stays in no history
  try {
    setTheme(localStorage.getItem("theme"));
  } catch { /* as above */ }
  [, state.about, words] = await Promise.all([loadWords(), askJson("/api/about"),
    fetch("/static/words.json").then(answer => answer.json())]);
  fillWords(document);
  list = new ImageList(state);
  panel = new ReadingPanel(state);
  state.list = list;
  state.panes.push(newPane(0));
  state.pane.root.classList.add("active");
  $("model").replaceChildren(...state.about.models.map((m, i) => new Option(m.name, String(i))));
  $("take-send").hidden = !state.about.dicomweb;
  panel.start(state.about);
  wire();
  setTool("window");
  showModel();
  showView();
  showTake();
  showTab("view");
  fillAbout();
  fillKeys();
  await list.start();
  if (list.shown.length) await open(list.shown[0].key);
  document.body.classList.remove("waiting");
  document.body.dataset.ready = "yes";
  window.xrv = {state}; // for whoever looks at the page with the tools of the browser
  watchReading().catch(problem);
}

start().catch(problem);
