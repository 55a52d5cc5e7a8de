// What a person takes away: the view as PNG, a report to print, DICOM objects.
import {askBlob, askJson, imagePath, save} from "./api.js";
import {make, placeOf, shown, stateOf} from "./reading.js";
import {findingName, say} from "./words.js";

export function savePicture(pane, done) {
  pane.viewer.draw();
  pane.viewer.canvas.toBlob(blob => {
    const name = `${stem(pane.name)}.view.png`;
    save(blob, name);
    done(name);
  }, "image/png");
}

function stem(name) {
  return name.split("/").at(-1).replace(/\.(png|jpe?g|jp[2cfhx]|j2[ck]|tiff?|dcm|dicom)$/i, "").replace(/[^\w.-]+/g, "_");
}

export function chosenKinds() {
  return [...document.querySelectorAll("#take-dicom input:checked")].map(box => box.value);
}

export async function saveObjects(pane, finding) {
  const query = {model: pane.model, kinds: chosenKinds().join(","), ...(finding ? {finding} : {})};
  const {blob, name} = await askBlob(imagePath(pane.key, "dicom", query));
  save(blob, name);
  return name;
}

export async function sendObjects(pane, finding) {
  const query = {model: pane.model, kinds: chosenKinds().join(","), ...(finding ? {finding} : {})};
  const answer = await askJson(imagePath(pane.key, "dicom", query), {method: "POST"});
  return answer.stored;
}

// One page of paper; the browser prints it, or saves it as PDF.
export function fillReport(pane, about) {
  const report = document.getElementById("report");
  const model = about.models[pane.model], answer = pane.findings ?? {findings: null};
  const kind = answer.kind;
  const known = (answer.findings ?? []).filter(f => f.value !== null)
    .sort((a, b) => placeOf(b, kind) - placeOf(a, kind));
  const canvas = pane.viewer.canvas;
  const picture = make("canvas", {width: canvas.width, height: canvas.height, role: "img",
    "aria-label": say("report.view")});
  pane.viewer.draw();
  picture.getContext("2d").drawImage(canvas, 0, 0);
  const above = known.filter(f => f.above);
  const facts = [["image", pane.name], ["date", new Date().toLocaleString()], ["network", model.name],
    ["weights", model.sha256 || "–"], ["software", `TorchXRayVision ${about.version}`],
    ["screening", answer.check || "–"]];
  const rows = known.map(f => make("tr", {class: f.above ? "above" : ""},
    make("th", {scope: "row", text: findingName(f.name)}), make("td", {text: shown(f.value)}),
    make("td", {text: say(`findings.${stateOf(f, kind)}`)})));
  const parts = [make("h1", {text: say("report.title")}),
    make("p", {class: "caution-long", text: say("caution.long")}),
    make("dl", {}, ...facts.flatMap(([name, value]) =>
      [make("dt", {text: say(`report.${name}`)}), make("dd", {text: value})]))];
  const left = [make("h2", {text: say("report.above")}), make("p", {class: "names",
    text: above.map(f => findingName(f.name)).join(", ") || say("findings.noneAbove")})];
  if (answer.refused) left.unshift(make("p", {class: "doubt", text: say("gate.forced", {reason: answer.refused})}));
  if (pane.structures) {
    const {measures, doubts} = pane.structures.facts, ratio = measures.cardiothoracic_ratio;
    left.push(make("h2", {text: say("report.measures")}), make("p", {text:
      `${say("anatomy.ratio")}: ${ratio === null ? say("anatomy.unknown") : ratio.toFixed(2)}. ` +
      (doubts.length ? say("anatomy.doubt", {reason: doubts.join("; ")}) : say("anatomy.sure"))}));
  }
  left.push(make("h2", {text: say("report.all")}), make("table", {}, make("thead", {}, make("tr", {},
    make("th", {scope: "col", text: say("report.finding")}), make("th", {scope: "col", text: say("findings.output")}),
    make("th", {scope: "col", text: say("report.state")}))), make("tbody", {}, ...rows)));
  parts.push(make("div", {class: "columns"}, make("div", {}, ...left),
    make("figure", {}, picture, make("figcaption", {text: say("report.view")}))));
  parts.push(make("p", {class: "foot", text: `${say("findings.meaning")} ${say("report.sign")}`}));
  report.replaceChildren(...parts);
  report.hidden = false;
}
