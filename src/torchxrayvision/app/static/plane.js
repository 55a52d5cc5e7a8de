// The stored values of one image, in 8 or 16 bits, windowed here and not on the server.
const LITTLE = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1;

export class Plane {
  constructor(facts, buffer) {
    this.facts = facts;
    this.width = facts.width;
    this.height = facts.height;
    const Kind = facts.bytes === 1 ? Uint8Array : Uint16Array;
    // Level k has one value for 2^k x 2^k of the image: what a small picture is made of.
    this.levels = [{data: new Kind(buffer), width: this.width, height: this.height}];
    this.lut = new Uint32Array(facts.bytes === 1 ? 256 : 65536);
    this.lutFor = "";
  }

  level(k) {
    while (this.levels.length <= k) this.levels.push(halved(this.levels.at(-1)));
    return this.levels[k];
  }

  // The coarsest level that has at least `scale` values per pixel of the image.
  levelFor(scale) {
    const most = Math.floor(Math.log2(Math.max(1, Math.min(this.width, this.height) / 64)));
    return Math.min(most, Math.max(0, Math.floor(Math.log2(1 / Math.max(scale, 1e-6)) + 0.2)));
  }

  // The stored value at a pixel, as the header counts it.
  valueAt(x, y) {
    const {base, step, slope, intercept} = this.facts;
    return (base + step * this.levels[0].data[y * this.width + x]) * slope + intercept;
  }

  prepare(low, high, inverted) {
    const name = `${low}/${high}/${inverted}`;
    if (name === this.lutFor) return;
    this.lutFor = name;
    const {base, step, least, most} = this.facts;
    const first = Math.max(0, Math.floor((least - base) / step));
    const last = Math.min(this.lut.length - 1, Math.ceil((most - base) / step));
    const factor = 255 / Math.max(high - low, 1e-9);
    for (let u = first; u <= last; u++) {
      let grey = (base + step * u - low) * factor;
      grey = grey < 0 ? 0 : grey > 255 ? 255 : (grey + 0.5) | 0;
      if (inverted) grey = 255 - grey;
      this.lut[u] = LITTLE
        ? 0xff000000 | (grey << 16) | (grey << 8) | grey
        : (grey << 24) | (grey << 16) | (grey << 8) | 0xff;
    }
  }

  // Grey of a part of a level, as RGBA.
  paint(level, left, top, width, height, target) {
    const {data, width: stride} = level, lut = this.lut;
    let to = 0;
    for (let y = top; y < top + height; y++) {
      let from = y * stride + left;
      for (const stop = from + width; from < stop; from++) target[to++] = lut[data[from]];
    }
  }

  // Stored values that a share of the image is below.
  quantile(share) {
    const {data} = this.level(Math.min(2, this.levelFor(0.1)));
    if (!this.sorted) this.sorted = data.slice().sort();
    const {base, step} = this.facts;
    return base + step * this.sorted[Math.round(share * (this.sorted.length - 1))];
  }
}

function halved({data, width, height}) {
  const across = Math.ceil(width / 2), down = Math.ceil(height / 2);
  const out = new data.constructor(across * down);
  for (let y = 0; y < down; y++) {
    const above = 2 * y * width, below = Math.min(2 * y + 1, height - 1) * width;
    for (let x = 0; x < across; x++) {
      const left = 2 * x, right = Math.min(left + 1, width - 1);
      out[y * across + x] =
        (data[above + left] + data[above + right] + data[below + left] + data[below + right] + 2) >> 2;
    }
  }
  return {data: out, width: across, height: down};
}
