// What lies over an image: evidence as colours and contour, structures as outlines.
const FLOOR = 0.1; // of the scale: weaker evidence gets no colour
const CONTOUR = 0.5; // of the scale

export {FLOOR, CONTOUR};

export class Heat {
  constructor(bytes) {
    const length = new DataView(bytes).getUint32(0, true);
    this.facts = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, length)));
    this.values = new Float32Array(bytes, 4 + length);
    this.canvas = document.createElement("canvas");
    this.limit = this.facts.limit;
  }

  get signed() {
    this.least ??= this.values.reduce((low, v) => (v < low ? v : low), 0);
    return this.least < 0;
  }

  // The colours, and the line around strong evidence, for a scale that all images share.
  prepare(colours, limit) {
    if (this.prepared === limit) return;
    this.prepared = limit;
    this.limit = limit;
    const {rows, columns} = this.facts;
    this.canvas.width = columns;
    this.canvas.height = rows;
    const picture = new ImageData(columns, rows);
    const table = this.signed ? colours.diverging : colours.sequential;
    this.contour = new Path2D();
    if (!(limit > 0)) return;
    for (let i = 0; i < this.values.length; i++) {
      const strength = Math.max(-1, Math.min(1, this.values[i] / limit));
      if (!(Math.abs(strength) >= FLOOR)) continue;
      const at = 3 * Math.round(this.signed ? (strength + 1) * 127.5 : strength * 255);
      picture.data.set([table[at], table[at + 1], table[at + 2]], 4 * i);
      picture.data[4 * i + 3] = Math.round(255 * Math.min(1, 0.15 + 0.85 * Math.abs(strength)));
    }
    this.canvas.getContext("2d").putImageData(picture, 0, 0);
    traceContour(this.values, rows, columns, CONTOUR * limit, this.facts.square, this.contour);
  }

  draw(context, scale, {opacity, contour}) {
    const [left, top, width, height] = this.facts.square;
    if (!(this.limit > 0)) return;
    context.globalAlpha = opacity;
    context.imageSmoothingEnabled = true;
    context.drawImage(this.canvas, left, top, width, height);
    context.globalAlpha = 1;
    if (!contour) return;
    for (const [colour, thick] of [["rgba(0,0,0,.75)", 3.5], ["#fff7c2", 1.5]]) {
      context.strokeStyle = colour;
      context.lineWidth = thick / scale;
      context.stroke(this.contour);
    }
  }
}

// Marching squares between the centres of cells.
function traceContour(values, rows, columns, level, [left, top, width, height], path) {
  const x = column => left + ((column + 0.5) * width) / columns;
  const y = row => top + ((row + 0.5) * height) / rows;
  const at = (row, column) =>
    row < 0 || column < 0 || row >= rows || column >= columns ? 0 : values[row * columns + column] || 0;
  const cross = (a, b) => (level - a) / (b - a);
  for (let row = -1; row < rows; row++)
    for (let column = -1; column < columns; column++) {
      const a = at(row, column), b = at(row, column + 1);
      const c = at(row + 1, column + 1), d = at(row + 1, column);
      const kind = (a >= level) | ((b >= level) << 1) | ((c >= level) << 2) | ((d >= level) << 3);
      if (kind === 0 || kind === 15) continue;
      const points = [];
      if (a >= level !== b >= level) points.push([x(column + cross(a, b)), y(row)]);
      if (b >= level !== c >= level) points.push([x(column + 1), y(row + cross(b, c))]);
      if (d >= level !== c >= level) points.push([x(column + cross(d, c)), y(row + 1)]);
      if (a >= level !== d >= level) points.push([x(column), y(row + cross(a, d))]);
      if (kind === 5) points.splice(1, 0, points.pop()); // top with left, right with bottom
      for (let i = 0; i + 1 < points.length; i += 2) {
        path.moveTo(...points[i]);
        path.lineTo(...points[i + 1]);
      }
    }
}

export class Structures {
  constructor(facts) {
    this.facts = facts;
    this.hidden = new Set();
    this.parts = facts.structures.map(part => {
      const path = new Path2D();
      let [x, y, longest] = [0, 0, 0];
      for (const ring of part.rings) {
        path.moveTo(ring[0], ring[1]);
        for (let i = 2; i < ring.length; i += 2) path.lineTo(ring[i], ring[i + 1]);
        path.closePath();
        if (ring.length > longest) {
          longest = ring.length;
          [x, y] = centre(ring);
        }
      }
      return {name: part.name, colour: `rgb(${part.colour.join(",")})`, path, x, y};
    });
  }

  draw(context, scale) {
    for (const part of this.parts) {
      if (this.hidden.has(part.name)) continue;
      context.globalAlpha = 0.1;
      context.fillStyle = part.colour;
      context.fill(part.path, "evenodd");
      context.globalAlpha = 1;
      context.strokeStyle = part.colour;
      context.lineWidth = 1.75 / scale;
      context.stroke(part.path);
    }
    const lines = this.facts.lines;
    if (!lines || this.hidden.has("lines")) return;
    context.strokeStyle = "#fff";
    for (const [name, [[x1, y1], [x2, y2]]] of Object.entries(lines)) {
      context.lineWidth = (name === "midline" ? 1 : 2) / scale;
      context.setLineDash(name === "midline" ? [6 / scale, 5 / scale] : []);
      context.beginPath();
      context.moveTo(x1, y1);
      context.lineTo(x2, y2);
      context.stroke();
    }
    context.setLineDash([]);
  }
}

function centre(ring) {
  let [area, x, y] = [0, 0, 0];
  for (let i = 0; i + 3 < ring.length; i += 2) {
    const cross = ring[i] * ring[i + 3] - ring[i + 2] * ring[i + 1];
    area += cross;
    x += (ring[i] + ring[i + 2]) * cross;
    y += (ring[i + 1] + ring[i + 3]) * cross;
  }
  return area ? [x / (3 * area), y / (3 * area)] : [ring[0], ring[1]];
}
