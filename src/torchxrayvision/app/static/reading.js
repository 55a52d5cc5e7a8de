// What the networks say of the image that is looked at: findings, evidence, measures, likeness.
import {askBytes, askJson, imagePath} from "./api.js";
import {FLOOR, Heat, Structures} from "./layers.js";
import {findingName, say} from "./words.js";

const NEAR = 0.1; // of the operating point, in the units of the output: unsure
const DIGITS = 3;

export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "text") element.textContent = value;
    else if (key === "class") element.className = value;
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `/static/icons.svg#${name}`);
  svg.append(use);
  return svg;
}

export const shown = value => (value === null || value === undefined ? "–" : value.toFixed(DIGITS));

// Where an output lies from 0 to 1 with the operating point in the middle.
export function placeOf(finding, kind) {
  if (finding.value === null) return null;
  if (kind === "operating-point") return finding.value;
  if (finding.point === null || kind !== "probability") return finding.probability ?? null;
  const {value, point} = finding;
  return value < point ? value / (2 * point) : 1 - (1 - value) / (2 * (1 - point));
}

export function stateOf(finding, kind) {
  if (finding.above === null) return "noPoint";
  const place = placeOf(finding, kind);
  if (finding.above) return place < 0.5 + NEAR ? "justAbove" : "above";
  return place >= 0.5 - NEAR ? "justBelow" : "below";
}

export class ReadingPanel extends EventTarget {
  constructor(state) {
    super();
    this.state = state;
    this.gate = document.getElementById("gate");
    this.body = document.getElementById("findings-body");
    this.evidence = document.getElementById("evidence");
    this.opacity = document.getElementById("opacity");
    this.contour = document.getElementById("contour");
    this.method = document.getElementById("method");
    this.heatFor = null;
    this.opened = new Set();
    this.opacity.addEventListener("input", () => this.setOptions());
    this.contour.addEventListener("change", () => this.setOptions());
    this.method.addEventListener("change", () => this.heatFor && this.showHeat(this.heatFor));
    document.getElementById("evidence-off").addEventListener("click", () => this.hideHeat());
    for (const [name, fill] of [["anatomy", "fillAnatomy"], ["similar", "fillSimilar"],
      ["header", "fillHeader"]]) {
      const details = document.getElementById(name);
      details.addEventListener("toggle", () => details.open && this[fill]());
    }
  }

  start(about) {
    this.method.replaceChildren(...about.methods.map(name => new Option(name, name)));
    this.setOptions();
    this.showPick();
  }

  setOptions() {
    document.getElementById("opacity-value").textContent = `${this.opacity.value} %`;
    this.state.options = {opacity: this.opacity.value / 100, contour: this.contour.checked};
    this.dispatchEvent(new Event("options"));
  }

  showPick() {
    this.pane = null;
    this.gate.hidden = true;
    this.evidence.hidden = true;
    this.body.replaceChildren(make("p", {class: "quiet", text: say("findings.pick")}));
    for (const name of ["anatomy-body", "similar-body", "header-body"])
      document.getElementById(name).replaceChildren();
  }

  // ---- findings ----

  async show(pane) {
    this.pane = pane;
    const {key, model} = pane;
    this.evidence.hidden = !pane.viewer.heat;
    if (pane.viewer.heat) this.fillEvidence(pane.viewer.heat);
    if (!pane.findings) {
      this.gate.hidden = true;
      this.body.replaceChildren(make("p", {class: "quiet loading", text: say("findings.loading")}));
      try {
        pane.findings = await askJson(imagePath(key, "findings", {model}));
      } catch (error) {
        if (this.pane === pane && pane.key === key) this.showBroken(error.detail || error.message);
        this.dispatchEvent(new Event("read"));
        return;
      }
      this.dispatchEvent(new Event("read"));
    }
    if (this.pane !== pane || pane.key !== key) return;
    this.fillFindings(pane);
    for (const name of ["anatomy", "similar", "header"]) {
      const details = document.getElementById(name);
      document.getElementById(`${name}-body`).replaceChildren();
      if (details.open) details.dispatchEvent(new Event("toggle"));
    }
  }

  showBroken(reason) {
    this.gate.hidden = false;
    this.gate.className = "gate bad";
    this.gate.replaceChildren(make("h2", {text: say("gate.broken")}),
      make("p", {text: say("gate.brokenDo", {reason})}));
    this.body.replaceChildren();
    this.evidence.hidden = true;
  }

  fillFindings(pane) {
    const {findings: answer} = pane;
    if (answer.error) return this.showBroken(answer.error);
    this.fillGate(pane, answer);
    if (!answer.findings) return this.body.replaceChildren();
    const kind = answer.kind;
    const known = answer.findings.filter(f => f.value !== null);
    known.sort((a, b) => placeOf(b, kind) - placeOf(a, kind));
    const pointed = known.some(f => f.above !== null);
    const above = known.filter(f => f.above), rest = known.filter(f => !f.above);
    const parts = [];
    if (!pointed) parts.push(make("p", {class: "quiet", text: say("findings.noPoints")}));
    else if (!above.length) parts.push(make("p", {class: "none", text: say("findings.noneAbove")}));
    const first = pointed ? above : rest.splice(0, 5);
    if (first.length) parts.push(make("ul", {class: "findings"}, ...first.map(f => this.finding(f, kind))));
    const details = make("details", {class: "rest"},
      make("summary", {text: say(pointed ? "findings.rest" : "findings.restOpen", {n: rest.length})}),
      make("ul", {class: "findings"}, ...rest.map(f => this.finding(f, kind))));
    details.open = this.opened.has("rest");
    details.addEventListener("toggle", () => this.opened[details.open ? "add" : "delete"]("rest"));
    if (rest.length) parts.push(details);
    parts.push(make("p", {class: "quiet", text: say("findings.meaning")}));
    this.body.replaceChildren(...parts);
  }

  fillGate(pane, answer) {
    this.gate.hidden = !answer.refused && !answer.check.startsWith("noted");
    this.gate.className = answer.refused ? "gate warn" : "gate note";
    if (answer.refused && !answer.forced) {
      const anyway = make("button", {id: "anyway", text: say("gate.anyway"), onclick: async () => {
        pane.findings = await askJson(imagePath(pane.key, "findings", {model: pane.model, anyway: 1}));
        if (this.pane === pane) this.show(pane);
        this.dispatchEvent(new Event("read"));
      }});
      this.gate.replaceChildren(make("h2", {text: say("gate.title")}),
        make("p", {text: say("gate.reason", {reason: answer.refused})}),
        make("p", {text: say("gate.do")}), anyway);
    } else if (answer.refused)
      this.gate.replaceChildren(make("p", {text: say("gate.forced", {reason: answer.refused})}));
    else if (!this.gate.hidden)
      this.gate.replaceChildren(
        make("p", {text: say("findings.screened", {reason: answer.check.replace(/^noted: /, "")})}));
    pane.mark(answer.refused && answer.forced ? say("hud.anyway") : "");
  }

  finding(finding, kind) {
    const name = findingName(finding.name), state = stateOf(finding, kind);
    const bar = make("span", {class: `bar ${state}`, role: "img",
      "aria-label": say("findings.bar", {name, state: say(`findings.${state}`)})},
    make("span", {class: "mark"}), make("span", {class: "fill"}), make("span", {class: "dot"}));
    const place = Math.min(1, Math.max(0, placeOf(finding, kind) ?? 0));
    bar.style.setProperty("--at", place);
    bar.style.setProperty("--from", Math.min(0.5, place));
    bar.style.setProperty("--to", Math.max(0.5, place));
    if (finding.above === null) bar.classList.add("plain");
    const facts = [[say(kind === "operating-point" ? "findings.outputOp" : "findings.output"), shown(finding.value), "output"]];
    if (finding.probability !== null && kind !== "probability")
      facts.push([say("findings.probability"), shown(finding.probability), "probability"]);
    if (finding.point !== null) facts.push([say("findings.point"), shown(finding.point), "point"]);
    const calibrated = finding.calibrated;
    if (calibrated) facts.push([say("findings.calibrated"), shown(calibrated.value), "calibrated"]);
    if (calibrated?.call) facts.push([say("findings.call"), say(`findings.called.${calibrated.call}`), "call"]);
    if (calibrated?.set) facts.push([say("findings.set"), say(`findings.sets.${calibrated.set}`), "set"]);
    const list = make("dl", {}, ...facts.flatMap(([term, value, id]) =>
      [make("dt", {text: term}), make("dd", {text: value, "data-fact": id})]));
    const more = make("details", {class: "more"}, make("summary", {},
      make("span", {class: "name", text: name}),
      make("span", {class: "words", text: say(`findings.${state}`)})), list);
    if (calibrated) more.append(make("p", {class: "quiet",
      text: say("findings.meaningCalibrated", {source: this.state.model.calibrated})}));
    const map = make("button", {class: "small map", "aria-pressed": this.heatFor === finding.name,
      "aria-label": say("findings.map", {name}), title: say("findings.map", {name}),
      "data-finding": finding.name,
      onclick: () => (this.heatFor === finding.name ? this.hideHeat() : this.showHeat(finding.name))},
    icon("heat"));
    return make("li", {"data-finding": finding.name, class: state}, more, bar, map);
  }

  // ---- evidence ----

  async showHeat(finding) {
    const pane = this.pane;
    if (!pane?.plane) return;
    this.heatFor = finding;
    this.pressMaps();
    const name = findingName(finding);
    this.evidence.hidden = false;
    document.getElementById("evidence-title").textContent = say("evidence.title", {name});
    document.getElementById("evidence-note").textContent = say("evidence.loading", {name});
    try {
      for (const each of this.state.panes.filter(p => p.plane && (p === pane || p.viewer.heat))) {
        const {key, model} = each;
        const method = this.method.value;
        const heat = new Heat(await askBytes(imagePath(key, "evidence", {model, finding, method})));
        if (each.key !== key || this.heatFor !== finding) return;
        this.state.scales[`${model}/${method}/${finding}`] = Math.max(
          this.state.scales[`${model}/${method}/${finding}`] ?? 0, heat.facts.scale);
        heat.scaleName = `${model}/${method}/${finding}`;
        each.viewer.heat = heat;
      }
    } catch (error) {
      this.hideHeat();
      this.dispatchEvent(new CustomEvent("problem", {detail: error}));
      return;
    }
    for (const each of this.state.panes) this.scaleHeat(each.viewer);
    if (this.pane === pane) this.fillEvidence(pane.viewer.heat);
  }

  // Colours of a finding mean the same in all images: they end at the strongest that was seen.
  scaleHeat(viewer) {
    if (!viewer.heat) return;
    const scale = this.state.scales[viewer.heat.scaleName];
    viewer.heat.prepare(this.state.about.colours, viewer.heat.facts.limit > 0 ? scale : 0);
    viewer.redraw();
  }

  fillEvidence(heat) {
    this.evidence.hidden = false;
    document.getElementById("evidence-title").textContent =
      say("evidence.title", {name: findingName(heat.facts.finding)});
    const weak = !(heat.limit > 0);
    const notes = [weak ? say("evidence.weak") : say("evidence.note")];
    const {value, operatingPoint, kind} = heat.facts;
    if (operatingPoint !== null && kind === "probability" && value < operatingPoint)
      notes.unshift(say("evidence.below"));
    document.getElementById("evidence-note").textContent = notes.join(" ");
    const legend = document.getElementById("legend");
    legend.setAttribute("aria-label", say("evidence.legend"));
    legend.hidden = weak;
    document.getElementById("legend-floor").textContent =
      weak ? "" : say("evidence.floor", {n: (FLOOR * heat.limit).toPrecision(2)});
    document.getElementById("legend-top").textContent =
      weak ? "" : say("evidence.top", {n: heat.limit.toPrecision(3)});
    const context = legend.getContext("2d"), table = heat.signed
      ? this.state.about.colours.diverging : this.state.about.colours.sequential;
    for (let x = 0; x < 256; x++) {
      const strength = heat.signed ? Math.abs(x / 127.5 - 1) : x / 255;
      context.fillStyle = strength < FLOOR ? "#000" : `rgb(${table.slice(3 * x, 3 * x + 3).join(",")})`;
      context.fillRect(x, 0, 1, 10);
    }
    this.pressMaps();
  }

  hideHeat() {
    this.heatFor = null;
    for (const pane of this.state.panes) {
      pane.viewer.heat = null;
      pane.viewer.redraw();
    }
    this.evidence.hidden = true;
    this.pressMaps();
  }

  pressMaps() {
    for (const button of this.body.querySelectorAll("button.map"))
      button.setAttribute("aria-pressed", button.dataset.finding === this.heatFor);
  }

  toggleHeat() {
    if (this.heatFor) return this.hideHeat();
    const first = this.body.querySelector("button.map");
    if (first) this.showHeat(first.dataset.finding);
  }

  // ---- structures ----

  async loadStructures(pane, upright = false) {
    if (pane.structures && pane.structures.facts.upright === upright) return pane.structures;
    const {key} = pane;
    const facts = await askJson(imagePath(key, "structures", upright ? {upright: 1} : {}));
    if (facts.error) throw new Error(facts.error);
    if (pane.key !== key) return null;
    pane.structures = new Structures(facts);
    return pane.structures;
  }

  async toggleStructures(pane, on = !pane.viewer.structures) {
    if (!on) pane.viewer.structures = null;
    else {
      document.getElementById("anatomy").open = true;
      try {
        pane.viewer.structures = await this.loadStructures(pane, pane.structures?.facts.upright);
      } catch (error) {
        this.dispatchEvent(new CustomEvent("problem", {detail: error}));
      }
    }
    pane.viewer.redraw();
    const box = document.getElementById("outlines");
    if (box && this.pane === pane) box.checked = Boolean(pane.viewer.structures);
  }

  async fillAnatomy(upright = this.pane?.structures?.facts.upright ?? false) {
    const pane = this.pane, body = document.getElementById("anatomy-body");
    if (!pane?.plane) return;
    if (!this.state.about.segmenter) {
      body.replaceChildren(make("p", {class: "quiet", text: say("anatomy.none")}));
      return;
    }
    if (!body.childElementCount)
      body.replaceChildren(make("p", {class: "quiet loading", text: say("anatomy.loading")}));
    let structures;
    try {
      structures = await this.loadStructures(pane, upright);
    } catch (error) {
      body.replaceChildren(make("p", {class: "quiet", text: error.message}));
      return;
    }
    if (!structures || this.pane !== pane) return;
    pane.viewer.structures = structures;
    pane.viewer.redraw();
    const {measures, across, doubts, turned} = structures.facts;
    const outlines = make("input", {type: "checkbox", id: "outlines",
      onchange: event => this.toggleStructures(pane, event.target.checked)});
    outlines.checked = Boolean(pane.viewer.structures);
    const ratio = measures.cardiothoracic_ratio;
    const length = value => {
      if (value === null) return say("anatomy.unknown");
      return across === null ? say("anatomy.px", {n: value.toFixed(0)}) : say("anatomy.mm", {n: (value * across).toFixed(1)});
    };
    const rows = [
      ["ratio", ratio === null ? say("anatomy.unknown") : ratio.toFixed(2), say("anatomy.ratioNote")],
      ["heart_width", length(measures.heart_width)],
      ["thorax_width", length(measures.thorax_width)],
      ["lung_area_ratio", measures.lung_area_ratio === null ? say("anatomy.unknown") : measures.lung_area_ratio.toFixed(2)],
      ["spine_heart_distance", length(measures.spine_heart_distance)],
    ];
    const verdict = make("p", {class: doubts.length ? "doubt" : "sure",
      text: doubts.length ? say("anatomy.doubt", {reason: doubts.join("; ")}) : say("anatomy.sure")});
    const areas = make("table", {}, make("caption", {class: "unseen", text: say("anatomy.caption")}),
      make("thead", {}, make("tr", {}, make("th", {scope: "col", text: say("anatomy.structure")}),
        make("th", {scope: "col", text: say("anatomy.area")}))),
      make("tbody", {}, ...structures.parts.map((part, i) => {
        const {pixels, mm2} = structures.facts.structures[i];
        const swatch = make("span", {class: "swatch"});
        swatch.style.setProperty("background", part.colour);
        return make("tr", {}, make("th", {scope: "row"}, swatch, part.name),
          make("td", {text: mm2 === undefined ? say("anatomy.px2", {n: pixels.toLocaleString("en")})
            : say("anatomy.cm2", {n: (mm2 / 100).toFixed(1)})}));
      })));
    const parts = [make("label", {class: "check"}, outlines, make("span", {text: say("anatomy.show")}))];
    if (turned) {
      const box = make("input", {type: "checkbox", id: "upright", onchange: event => {
        this.fillAnatomy(event.target.checked);
      }});
      box.checked = structures.facts.upright;
      parts.push(make("p", {class: "doubt", text: say("anatomy.turned", {n: turned})}),
        make("label", {class: "check"}, box, make("span", {text: say("anatomy.upright")})));
    }
    parts.push(verdict, make("dl", {class: "measures"}, ...rows.flatMap(([name, value, note]) =>
      [make("dt", {text: say(`anatomy.${name}`)}), make("dd", {text: value, "data-measure": name, title: note})])),
    make("p", {class: "quiet", text: say("anatomy.ratioNote")}), areas);
    if (across !== null) parts.push(make("p", {class: "quiet", text: say("anatomy.detector")}));
    body.replaceChildren(...parts);
  }

  // ---- likeness and header ----

  async fillSimilar() {
    const pane = this.pane, body = document.getElementById("similar-body");
    if (!pane?.findings) return;
    const found = await askJson(imagePath(pane.key, "similar", {model: pane.model}));
    if (this.pane !== pane) return;
    if (!found.images.length) {
      body.replaceChildren(make("p", {class: "quiet", text: say("similar.few")}));
      return;
    }
    const items = found.images.map(({key, cosine}) => {
      const picture = make("canvas", {width: 112, height: 112, "aria-hidden": "true"});
      this.state.list.paintThumbnail(picture, key);
      const item = this.state.list.items.get(key);
      return make("li", {}, make("button", {title: item?.name ?? "", onclick: () =>
        this.dispatchEvent(new CustomEvent("open", {detail: key}))}, picture,
      make("span", {class: "name", text: item?.name ?? ""}),
      make("span", {class: "state", text: say("similar.cosine", {n: cosine.toFixed(2)})})));
    });
    body.replaceChildren(make("p", {class: "quiet", text: say("similar.among", {n: found.read})}),
      make("ul", {class: "alike"}, ...items));
  }

  fillHeader() {
    const pane = this.pane, body = document.getElementById("header-body");
    if (!pane?.plane) return;
    const f = pane.plane.facts;
    const rows = [["name", pane.name], ["size", say("header.sizeValue", f)], ["format", f.format.toUpperCase()],
      ["photometric", f.photometric],
      ["spacing", f.spacing ? say("header.spacingValue", {row: f.spacing[0], column: f.spacing[1]}) : say("header.noSpacing")],
      ["aspect", f.aspect === 1 ? "" : f.aspect.toFixed(3)], ["view", f.view], ["modality", f.modality],
      ["bodyPart", f.bodyPart], ["notes", f.notes.join("; ")], ["screening", pane.findings?.check]];
    body.replaceChildren(make("dl", {}, ...rows.filter(([, value]) => value).flatMap(([name, value]) =>
      [make("dt", {text: say(`header.${name}`)}), make("dd", {text: value})])));
  }
}
