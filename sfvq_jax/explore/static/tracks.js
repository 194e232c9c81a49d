// The film of codewords and, under it, all that is known along the curve.

import { byId, clamp, element } from "./words.js";

export const PALETTE = [
  "#4c78a8", "#f58518", "#54a24b", "#e45756", "#9d6bc4", "#b07f4f", "#e678b4", "#8c8f96",
  "#b5a61e", "#3fb6c4", "#2a9d8f", "#c44e52", "#7a9e3a", "#d4a72c", "#6f7fd6", "#a05d8c",
];
export const colourOf = (index) => PALETTE[index % PALETTE.length];

// A class has one colour on the whole page, whoever names it.
export function classColour(about, name, otherwise) {
  const known = about.classes?.names ?? [];
  const index = known.findIndex((each) => each.toLowerCase() === name.toLowerCase());
  return colourOf(index >= 0 ? index : known.length + otherwise);
}

const FILM_CELL = 76;
const HEIGHTS = { labels: 14, classes: 12, use: 46, trace: 26, data: 60 };
const GAP = 6;

export function scaled(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}

export const colour = (name) =>
  getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Images that slide under a mark in the middle.
export class Film {
  constructor(about, sheet) {
    this.about = about;
    this.sheet = sheet;
    this.canvas = byId("film");
    this.small = Math.max(sheet.width, sheet.height) <= 64;
  }

  resize() {
    this.width = this.canvas.clientWidth;
    this.height = this.canvas.clientHeight;
    this.context = scaled(this.canvas, this.width, this.height);
    this.cell = Math.min(FILM_CELL, this.height - 18);
    this.inks = { ink: colour("--ink"), quiet: colour("--quiet"), accent: colour("--accent") };
  }

  draw(position, labelOf) {
    const { context, width, height, cell, sheet, about, inks } = this;
    const step = cell + 4;
    const scale = Math.min(cell / sheet.width, cell / sheet.height);
    const [w, h] = [sheet.width * scale, sheet.height * scale];
    context.clearRect(0, 0, width, height);
    context.imageSmoothingEnabled = !this.small;
    context.font = "11px system-ui, sans-serif";
    context.textAlign = "center";
    const first = Math.max(0, Math.ceil(position - width / 2 / step - 1));
    const last = Math.min(about.curve.codewords - 1, Math.floor(position + width / 2 / step + 1));
    for (let k = first; k <= last; k++) {
      const x = width / 2 + (k - position) * step;
      sheet.draw(context, k, Math.round(x - w / 2), (cell - h) / 2, w, h);
      if (about.classes) {
        context.fillStyle = colourOf(about.classes.of_codewords[k]);
        context.fillRect(x - w / 2, cell + 1, w, 3);
      }
      context.fillStyle = Math.abs(k - position) < 0.5 ? inks.ink : inks.quiet;
      const label = labelOf(k);
      context.fillText(label ? `${k} ${label}`.slice(0, 13) : String(k), x, cell + 15);
    }
    context.strokeStyle = inks.accent;
    context.lineWidth = 2;
    context.beginPath();
    context.moveTo(width / 2, 0);
    context.lineTo(width / 2, cell + 4);
    context.stroke();
  }

  // The whole film as a picture, in rows of 16.
  asCanvas() {
    const { sheet, about } = this;
    const columns = Math.min(16, about.curve.codewords);
    const rows = Math.ceil(about.curve.codewords / columns);
    const size = Math.max(64, sheet.width);
    const canvas = element("canvas", { width: columns * size, height: rows * size });
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = !this.small;
    for (let k = 0; k < about.curve.codewords; k++) {
      sheet.draw(context, k, (k % columns) * size, Math.floor(k / columns) * size, size, size);
    }
    return canvas;
  }
}

// Rows over the whole curve, with one playhead.
export class Tracks {
  constructor(about, labels) {
    this.about = about;
    this.labels = labels;
    this.canvas = byId("tracks");
    this.frame = byId("scrubber");
    this.playhead = byId("playhead");
    this.gutter = byId("gutter");
    const spread = (values) => Math.max(...values) - Math.min(...values);
    const classes = new Set(about.classes?.names ?? []);
    const statistics = about.attributes.filter((a) => !classes.has(a.name));
    const ranked = [...statistics].sort((a, b) => spread(b.values) - spread(a.values));
    this.shown = new Set(ranked.slice(0, 3).map((a) => a.name));
  }

  get last() {
    return this.about.curve.codewords - 1;
  }

  resize() {
    this.width = this.frame.clientWidth;
    this.left = this.gutter.offsetWidth;
    this.right = this.width - 10;
    this.draw();
  }

  x(position) {
    return this.left + (position / this.last) * (this.right - this.left);
  }

  positionAt(x) {
    return clamp(((x - this.left) / (this.right - this.left)) * this.last, 0, this.last);
  }

  move(position) {
    this.playhead.style.transform = `translateX(${this.x(position)}px)`;
  }

  rowsShown() {
    const { about } = this;
    const rows = [];
    if (this.labels.list.length) rows.push(["labels", "labels", HEIGHTS.labels]);
    if (about.classes) rows.push(["classes", "class", HEIGHTS.classes]);
    rows.push(["use", "latents a line", HEIGHTS.use]);
    for (const attribute of about.attributes) {
      if (this.shown.has(attribute.name)) rows.push(["trace", attribute.name, HEIGHTS.trace]);
    }
    if (about.data) rows.push(["data", "your latents", HEIGHTS.data]);
    return rows;
  }

  draw() {
    const rows = this.rowsShown();
    const height = rows.reduce((sum, row) => sum + row[2] + GAP, 0);
    this.canvas.style.height = `${height}px`;
    const context = scaled(this.canvas, this.width, height);
    this.context = context;
    this.gutter.replaceChildren();
    this.places = {};
    let y = 0;
    this.shade(height);
    for (const [kind, name, h] of rows) {
      const text = element("div", { textContent: name, title: name });
      text.style.top = `${y + h / 2 - 9}px`;
      this.gutter.append(text);
      this.places[kind] = [y, h];
      this[kind === "labels" ? "labelsRow" : kind](y, h, name);
      y += h + GAP;
    }
  }

  // Where images leave the distribution.
  shade(height) {
    const { about, context } = this;
    if (!about.inside) return;
    context.fillStyle = colour("--shade");
    const half = (about.places[1] - about.places[0]) / 2;
    about.inside.forEach((inside, i) => {
      if (inside) return;
      const [a, b] = [about.places[i] - half, about.places[i] + half];
      const [left, right] = [this.x(clamp(a, 0, this.last)), this.x(clamp(b, 0, this.last))];
      context.fillRect(left, 0, right - left, height);
    });
  }

  labelsRow(y, h) {
    const { context } = this;
    for (const label of this.labels.list) {
      const half = label.start === label.stop ? 0.4 : 0;
      const left = this.x(clamp(label.start - half, 0, this.last));
      const right = this.x(clamp(label.stop + half, 0, this.last));
      context.fillStyle = label.leave_out ? colour("--quiet") : this.labels.colour(label.text);
      context.globalAlpha = label.leave_out ? 0.45 : 1;
      context.fillRect(left, y, Math.max(right - left, 2), h);
      context.globalAlpha = 1;
    }
  }

  classes(y, h) {
    const { context, about } = this;
    about.classes.of_codewords.forEach((c, k) => {
      const left = this.x(Math.max(k - 0.5, 0));
      context.fillStyle = colourOf(c);
      context.fillRect(left, y, this.x(Math.min(k + 0.5, this.last)) - left, h);
    });
  }

  use(y, h) {
    const { context, about } = this;
    const most = Math.max(...about.use, 1e-9);
    about.use.forEach((share, j) => {
      const [left, right] = [this.x(j), this.x(j + 1)];
      const high = (share / most) * (h - 8);
      context.fillStyle = colour("--bar");
      const gap = right - left > 4 ? 1 : 0;
      context.fillRect(left + gap / 2, y + h - high, right - left - gap, high);
    });
    const even = y + h - (1 / about.use.length / most) * (h - 8);
    context.strokeStyle = colour("--quiet");
    context.setLineDash([3, 3]);
    context.beginPath();
    context.moveTo(this.left, even);
    context.lineTo(this.right, even);
    context.stroke();
    context.setLineDash([]);
    context.fillStyle = colour("--warn");
    for (const k of about.dead) this.mark(this.x(k), y, "dead");
    for (const k of about.outliers) this.mark(this.x(k), y, "outlier");
  }

  mark(x, y, kind) {
    const { context } = this;
    context.beginPath();
    if (kind === "dead") {
      context.moveTo(x - 4, y);
      context.lineTo(x + 4, y);
      context.lineTo(x, y + 7);
    } else {
      context.arc(x, y + 4, 3.5, 0, 2 * Math.PI);
    }
    context.fill();
  }

  trace(y, h, name) {
    const { context, about } = this;
    const { values } = about.attributes.find((attribute) => attribute.name === name);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const place = (value) => y + h - 2 - ((value - low) / Math.max(high - low, 1e-9)) * (h - 4);
    context.strokeStyle = colour("--edge");
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(this.left, y + h);
    context.lineTo(this.right, y + h);
    context.stroke();
    context.strokeStyle = colour("--trace");
    context.lineWidth = 1.5;
    context.lineJoin = "round";
    context.beginPath();
    values.forEach((value, i) => context.lineTo(this.x(about.places[i]), place(value)));
    context.stroke();
  }

  data(y, h) {
    const { context, about } = this;
    const { counts } = about.data;
    const sums = counts[0].map((_, k) => counts.reduce((sum, row) => sum + row[k], 0));
    this.most = Math.max(...sums, 1);
    sums.forEach((_, k) => {
      const left = this.x(Math.max(k - 0.5, 0));
      const width = this.x(Math.min(k + 0.5, this.last)) - left - 1;
      let below = y + h;
      counts.forEach((row, c) => {
        const high = (row[k] / this.most) * h;
        const name = about.data.classes[c];
        context.fillStyle = name === undefined ? colour("--trace") : classColour(about, name, c);
        context.fillRect(left, below - high, Math.max(width, 1), high);
        below -= high;
      });
    });
  }

  // The class of the bar at a place within the canvas; undefined where there is no histogram.
  dataAt(x, y) {
    const place = this.places.data;
    if (!place || y < place[0] || y > place[0] + place[1]) return undefined;
    const k = Math.round(this.positionAt(x));
    let left = ((place[0] + place[1] - y) / place[1]) * this.most;
    const { counts, classes } = this.about.data;
    for (let c = 0; c < counts.length; c++) {
      left -= counts[c][k];
      if (left <= 0) return { codeword: k, label: classes.length ? c : null };
    }
    return { codeword: k, label: null };
  }
}
