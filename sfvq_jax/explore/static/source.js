// Where a page's images come from: a server that renders (live), or the page itself (frozen).
//
// Both have the same few names:
//   about                     all that was measured, as survey.py tells it
//   live                      whether anything can be rendered
//   sheet(name)               a promise of a Sheet: "codewords", "directions"
//   show(view, painted)       calls painted(here, seeds) once: here = [sheet, index],
//                             seeds = a list of them; never, if a newer view overtakes it
//   strip(id)                 a promise of [strength, sheet, index] of a direction or a line
//   card(line, layers)        a promise of what the line does; null where that is not known,
//                             undefined where another line was asked for meanwhile
//   rows(codeword, label)     a promise of {sheet, rows} of the user's latents at a bar, or null
//   save(labels)              a promise of the labels as they are kept

import { keep, kept, lineOf } from "./words.js";

export class Sheet {
  constructor(images, { width, height, columns, rows = Infinity, count = 0 }) {
    Object.assign(this, { images, width, height, columns, rows, count });
  }

  draw(context, index, x, y, w, h) {
    const each = this.columns * this.rows;
    const image = this.images[Number.isFinite(each) ? Math.floor(index / each) : 0];
    const i = Number.isFinite(each) ? index % each : index;
    const { width, height, columns } = this;
    const [sx, sy] = [(i % columns) * width, Math.floor(i / columns) * height];
    context.drawImage(image, sx, sy, width, height, x, y, w, h);
  }
}

function imageOf(url) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => reject(new Error("an image cannot be read"));
    image.src = url;
  });
}

class LiveSource {
  live = true;
  flying = 0;
  waiting = null;
  sent = 0;
  painted = 0;
  slow = false;
  page = crypto.randomUUID();

  async open() {
    this.about = await (await fetch("about.json")).json();
    return this;
  }

  async sheet(name) {
    const blob = await (await fetch(`sheet/${name}`)).blob();
    return new Sheet([await createImageBitmap(blob)], this.about.tiles[name]);
  }

  // At most two requests are under way, so that the server always has the next one; the newest of
  // the others waits.
  show(view, painted) {
    this.waiting = [view, painted];
    this.pump();
  }

  async pump() {
    if (this.flying >= 2 || !this.waiting) return;
    const [view, painted] = this.waiting;
    this.waiting = null;
    const number = ++this.sent;
    this.flying++;
    const began = performance.now();
    try {
      // of a slow model only the image at the position, while it is dragged
      const count = this.slow && view.dragging ? 0 : this.about.seeds.count;
      const { dragging, ...rest } = view;
      const body = JSON.stringify({ ...rest, count, page: this.page });
      const headers = { "Content-Type": "application/json" };
      const answer = await fetch("picture", { method: "POST", headers, body });
      if (answer.status === 204) return;
      if (!answer.ok) throw new Error(await answer.text());
      const image = await createImageBitmap(await answer.blob());
      this.slow = performance.now() - began > (this.slow ? 120 : 400);
      if (number < this.painted) return;
      this.painted = number;
      const [width, height] = [image.width / (count + 1), image.height];
      const sheet = new Sheet([image], { width, height, columns: count + 1, count: count + 1 });
      painted([sheet, 0], Array.from({ length: count }, (_, i) => [sheet, i + 1]));
    } catch (error) {
      this.failed?.(error);
    } finally {
      this.flying--;
      this.pump();
    }
  }

  async strip(id) {
    const { strengths } = this.about.tiles.directions;
    const sheet = await (this.directions ??= this.sheet("directions"));
    const first = Number(id.split(":")[1]) * strengths.length;
    return strengths.map((s, i) => [s, sheet, first + i]).sort((a, b) => a[0] - b[0]);
  }

  async post(path, content) {
    const headers = { "Content-Type": "application/json" };
    const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(content) });
    if (!answer.ok && answer.status !== 409) throw new Error(await answer.text());
    return answer;
  }

  async card(line, layers) {
    const answer = await this.post("card", { line, layers, page: this.page });
    return answer.status === 204 ? undefined : answer.json();
  }

  async rows(codeword, label) {
    const answer = await this.post("rows", { codeword, label });
    if (answer.status === 204) return null;
    const rows = answer.headers.get("X-Rows").split(",").map(Number);
    const image = await createImageBitmap(await answer.blob());
    const [width, height] = [image.width / rows.length, image.height];
    return { rows, sheet: new Sheet([image], { width, height, columns: rows.length }) };
  }

  async save(labels, revision) {
    const answer = await this.post("labels", { labels, revision });
    return { ...(await answer.json()), others: answer.status === 409 };
  }
}

class FrozenSource {
  live = false;

  constructor(about) {
    this.about = about;
    this.key = `sfvq-jax labels ${about.curve.sha256}`;
    const own = kept(this.key, null);
    if (own && isLabels(own.labels)) about.labels = { file: "", revision: 0, labels: own.labels };
  }

  async open() {
    const names = Object.keys(this.about.sheets);
    const opened = names.map(async (name) => {
      const { sheets, ...shape } = this.about.sheets[name];
      return new Sheet(await Promise.all(sheets.map(imageOf)), shape);
    });
    const sheets = await Promise.all(opened);
    this.sheets = Object.fromEntries(names.map((name, i) => [name, sheets[i]]));
    return this;
  }

  async sheet(name) {
    return this.sheets[name];
  }

  // The nearest images that the page holds; of a stack, its one edit.
  show(view, painted) {
    const { about } = this;
    const frame = Math.round(view.position * about.frames_a_line);
    const edit = view.stack[0];
    const id = edit ? edit.id : `line:${lineOf(view.position, about)}`;
    const strength = edit ? edit.strength : view.along;
    const seeds = Array.from({ length: about.strip.seeds }, (_, s) => this.moved(id, s, strength));
    painted([this.sheets.frames, frame], seeds);
  }

  moved(id, seed, strength) {
    const { strengths, seeds } = this.about.strip;
    const distance = (s) => Math.abs(s - strength);
    const nearest = [0, ...strengths].reduce((a, b) => (distance(b) < distance(a) ? b : a));
    if (nearest === 0) return [this.sheets.seeds, seed];
    const [kind, index] = id.split(":");
    const sheet = this.sheets[kind === "line" ? "lines" : "directions"];
    return [sheet, (Number(index) * seeds + seed) * strengths.length + strengths.indexOf(nearest)];
  }

  async strip(id) {
    const strengths = [0, ...this.about.strip.strengths].sort((a, b) => a - b);
    return strengths.map((s) => [s, ...this.moved(id, 0, s)]);
  }

  async card(line) {
    return this.about.card_of[line];
  }

  async rows() {
    return null;
  }

  async save(labels) {
    const { file, revision } = this.about.labels;
    const content = { labels, file, revision: revision + 1 };
    this.about.labels = content;
    keep(this.key, content);
    return { ...content, others: false };
  }
}

const isLabels = (list) =>
  Array.isArray(list) &&
  list.every(
    (l) => typeof l?.text === "string" && Number.isFinite(l.start) && Number.isFinite(l.stop),
  );

export function openSource() {
  const data = document.getElementById("data");
  return (data ? new FrozenSource(JSON.parse(data.textContent)) : new LiveSource()).open();
}
