// What stands below and beside the images: the line's card, directions and their stack, distances.

import { classColour } from "./tracks.js";
import {
  asDirectionFile, byId, clamp, download, element, fileName, layersText, lineOf, lookUp, percent,
  say, signed,
} from "./words.js";

// The card of a line, asked for once the position rests on it.
export class Card {
  constructor(source) {
    this.source = source;
    this.about = source.about;
    this.place = byId("card");
    this.key = "";
  }

  show(position, layers) {
    const line = lineOf(position, this.about);
    const key = `${line} ${layers}`;
    if (key === this.key) return;
    this.key = key;
    clearTimeout(this.timer);
    this.plain(line, layers, this.about.cards ? "measured once you stay on it" : "");
    if (this.about.cards) {
      this.timer = setTimeout(() => this.ask(key, line, layers), this.source.live ? 400 : 0);
    }
  }

  async ask(key, line, layers) {
    if (this.source.live) this.plain(line, layers, "measuring …");
    try {
      const card = await this.source.card(line, layers);
      if (this.key !== key || card === undefined) return;
      if (card) this.fill(line, card);
      else this.plain(line, layers, "nothing can be measured here");
    } catch (error) {
      if (this.key === key) this.plain(line, layers, `not measured: ${error.message}`);
    }
  }

  title(line) {
    const { classes } = this.about;
    const ends = classes && [line, line + 1].map((k) => classes.names[classes.of_codewords[k]]);
    const text = ends ? (ends[0] === ends[1] ? ends[0] : `${ends[0]} to ${ends[1]}`) : "";
    return element(
      "div",
      {},
      element("h2", { textContent: `Line ${line}` }),
      element("p", { className: "quiet", textContent: text }),
    );
  }

  facts(line, more = []) {
    const { about } = this;
    const rows = [
      ["latents", `${percent(about.use[line])} (even use: ${percent(1 / about.use.length)})`],
      ["one σ", `${about.units[line].toPrecision(3)} in latent space`],
      ...more,
    ];
    const cells = rows.flatMap(([name, value]) => [
      element("dt", { textContent: name }),
      element("dd", { textContent: value }),
    ]);
    return element("dl", { className: "facts" }, ...cells);
  }

  plain(line, layers, note) {
    const told = element("p", { className: "quiet", textContent: note });
    const where = layersText(layers, this.about.model.layers);
    this.place.replaceChildren(this.title(line), this.facts(line, [["moved", where]]), told);
  }

  fill(line, card) {
    const shown = Object.keys(card.judged).length ? card.judged : card.effects;
    const ranked = Object.entries(shown).sort((a, b) => Math.abs(b[1][0]) - Math.abs(a[1][0]));
    const most = Math.max(...ranked.map(([, e]) => Math.max(Math.abs(e[1]), Math.abs(e[2]))), 0.1);
    const at = (value) => `${50 + (clamp(value, -most, most) / most) * 50}%`;
    const wide = (a, b) => `${(Math.abs(b - a) / most) * 50}%`;
    const cells = ranked.slice(0, 7).flatMap(([name, [mean, low, high]]) => {
      const bar = element("i");
      bar.style.left = at(Math.min(mean, 0));
      bar.style.width = wide(0, mean);
      const whisker = element("b");
      whisker.style.left = at(low);
      whisker.style.width = wide(low, high);
      const told = `${signed(mean, 2)} [${signed(low, 2)}, ${signed(high, 2)}]`;
      return [
        element("span", { textContent: name }),
        element("span", { className: "effect", title: told }, bar, whisker),
        element("span", { className: "number", textContent: signed(mean, 2), title: told }),
      ];
    });
    const far = (limit, sign) => (limit === null ? `beyond ${sign}8` : signed(limit));
    const limits = card.limits
      ? `${far(card.limits[0], "−")} to ${far(card.limits[1], "+")} σ`
      : "not measured";
    const facts = [
      ["moved", layersText(card.layers, this.about.model.layers)],
      ["inside", limits],
      ["entangled", `${card.entanglement.toFixed(2)} (0 changes nothing else)`],
    ];
    this.place.replaceChildren(
      this.title(line),
      element("p", { textContent: card.name.split(";")[0] }),
      element("div", { className: "effects", title: "change a σ, with 95 % intervals" }, ...cells),
      this.facts(line, facts),
    );
  }
}

const COLUMNS = [
  ["name", "name"],
  ["strip", ""],
  ["effect", "effect"],
  ["gained", "gained"],
  ["entanglement", "entangled"],
  ["limits", "inside, σ"],
  ["layers", "layers"],
  ["confirmed", "confirmed"],
];

// A table of directions and lines, and the edits that are stacked.
export class Edits {
  constructor(source, state, thumbs, changed) {
    Object.assign(this, { source, about: source.about, state, thumbs, changed });
    this.sorting = { column: "", sign: 1 };
    this.rows = [...this.about.directions.map((d) => this.ofDirection(d)), ...this.ofLines()];
    const kinds = this.about.directions.length
      ? ["directions", "lines", "directions and lines"]
      : ["lines"];
    byId("kind").replaceChildren(...kinds.map((kind) => new Option(kind)));
    byId("kind").onchange = () => this.fill();
    byId("search").oninput = () => this.fill();
    this.head();
    this.fill();
    this.stack();
  }

  ofDirection(direction) {
    const { measured } = direction;
    const effect = (measured.judged ?? measured.effects ?? {})[measured.attribute];
    const limits = measured.limits ?? null;
    return {
      id: direction.id,
      kind: "directions",
      name: direction.name.split(";")[0],
      effect: effect ? effect.mean : null,
      interval: effect ? `[${effect.low.toFixed(2)}, ${effect.high.toFixed(2)}]` : "",
      gained: measured.gain?.gained?.[0] ?? null,
      entanglement: measured.entanglement ?? null,
      limits,
      layers: direction.layers,
      confirmed: measured.confirmed ?? null,
    };
  }

  // Of lines what is known of their ends: the attribute that changes most; of a file's also what
  // their cards tell.
  ofLines() {
    const { about } = this;
    const classes = about.classes;
    return about.use.map((_, j) => {
      const changes = about.attributes.map((a) => [a.name, a.values[2 * j + 2] - a.values[2 * j]]);
      changes.sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
      const card = about.card_of?.[j];
      const ends = classes && [j, j + 1].map((k) => classes.names[classes.of_codewords[k]]);
      const kinds = ends ? (ends[0] === ends[1] ? ` · ${ends[0]}` : ` · ${ends.join(" to ")}`) : "";
      const what = changes
        .slice(0, 2)
        .map(([name, change]) => `${change > 0 ? "more" : "less"} ${name}`);
      return {
        id: `line:${j}`,
        kind: "lines",
        name: `line ${j}${kinds}${what.length ? ` · ${what.join(", ")}` : ""}`,
        effect: changes.length ? Math.abs(changes[0][1]) : null,
        interval: "end to end",
        gained: null,
        entanglement: card?.entanglement ?? null,
        limits: card?.limits ?? null,
        layers: [0, about.model.layers - 1],
        confirmed: null,
      };
    });
  }

  head() {
    const cells = COLUMNS.map(([key, text]) => {
      if (key === "strip") return element("th", {}, element("span", { className: "hidden-text", textContent: "strip" }));
      const button = element("button", { type: "button", textContent: text });
      button.onclick = () => {
        const same = this.sorting.column === key;
        this.sorting = { column: key, sign: same ? -this.sorting.sign : key === "name" ? 1 : -1 };
        this.fill();
      };
      return element("th", { scope: "col" }, button);
    });
    this.body = element("tbody");
    this.headers = cells;
    const last = element("th", {}, element("span", { className: "hidden-text", textContent: "actions" }));
    byId("table").replaceChildren(element("thead", {}, element("tr", {}, ...cells, last)), this.body);
  }

  fill() {
    const { column, sign } = this.sorting;
    const kind = byId("kind").value;
    const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const value = (row) => {
      const found = column === "limits" ? row.limits?.[1] : column === "layers" ? row.layers[0] : row[column];
      return typeof found === "boolean" ? Number(found) : found;
    };
    const rows = this.rows.filter(
      (row) => kind.includes(row.kind) && words.every((word) => row.name.toLowerCase().includes(word)),
    );
    if (column) {
      rows.sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        if (x === null || x === undefined) return 1;
        if (y === null || y === undefined) return -1;
        return sign * (typeof x === "string" ? x.localeCompare(y, undefined, { numeric: true }) : x - y);
      });
    }
    COLUMNS.forEach(([key], i) => {
      const sorted = key === column ? (sign > 0 ? "ascending" : "descending") : "none";
      this.headers[i].setAttribute("aria-sort", sorted);
    });
    this.body.replaceChildren(...rows.map((row) => this.row(row)));
    this.mark();
    if (!rows.length) {
      const told = element("td", { colSpan: COLUMNS.length + 1, textContent: "nothing is called so" });
      this.body.append(element("tr", {}, told));
    }
  }

  row(row) {
    const number = (value, digits = 2) => (value === null ? "–" : value.toFixed(digits));
    const limit = (value) => (value === null ? "–" : signed(value));
    const strip = element("canvas", { role: "img", "aria-label": `strip of ${row.name}` });
    this.paint(strip, row);
    const add = element("button", {
      type: "button", className: "add", textContent: "+", title: "add to the stack",
      "aria-label": `add ${row.name} to the stack`, onclick: () => this.add(row.id),
    });
    const save = element("button", {
      type: "button", className: "plain", textContent: "PNG", title: "the strip as a PNG",
      "aria-label": `strip of ${row.name} as a PNG`,
      onclick: () => strip.toBlob((blob) => download(`${fileName(row.name)}.png`, blob)),
    });
    const actions = [add, save];
    if (row.kind === "lines") {
      const line = Number(row.id.split(":")[1]);
      actions.push(
        element("button", {
          type: "button", className: "plain", textContent: "go", "aria-label": `go to line ${line}`,
          onclick: () => this.changed({ position: line + 0.5 }),
        }),
      );
    }
    const made = element(
      "tr",
      {},
      element("td", { className: "name", textContent: row.name }),
      element("td", {}, strip),
      element("td", { textContent: number(row.effect), title: row.interval }),
      element("td", { textContent: row.gained === null ? "–" : percent(row.gained, 0) }),
      element("td", { textContent: number(row.entanglement) }),
      element("td", { className: "pair", textContent: row.limits ? row.limits.map(limit).join(" to ") : "–" }),
      element("td", { textContent: row.layers.join("–") }),
      element("td", { textContent: row.confirmed === null ? "–" : row.confirmed ? "yes" : "no" }),
      element("td", { className: "actions" }, ...actions),
    );
    made.dataset.id = row.id;
    return made;
  }

  async paint(canvas, row) {
    let tiles;
    if (row.kind === "lines") {
      const line = Number(row.id.split(":")[1]);
      tiles = [line, line + 1].map((k) => [0, this.thumbs, k]);
    } else {
      tiles = await this.source.strip(row.id);
    }
    const { width, height } = tiles[0][1];
    canvas.width = tiles.length * width;
    canvas.height = height;
    const context = canvas.getContext("2d");
    tiles.forEach(([, sheet, index], i) => sheet.draw(context, index, i * width, 0, width, height));
  }

  add(id) {
    const { state } = this;
    if (state.stack.some((edit) => edit.id === id)) return;
    const edit = { id, strength: 2, layers: [...lookUp(id, this.about).layers] };
    const stack = this.source.live ? [...state.stack, edit].slice(-16) : [edit];
    this.changed({ stack, before: false });
    this.stack();
  }

  mark() {
    for (const row of this.body.children) {
      const chosen = this.state.stack.some((edit) => edit.id === row.dataset.id);
      row.classList.toggle("chosen", chosen);
    }
  }

  stack() {
    const { state, about } = this;
    const live = this.source.live;
    byId("stack-note").textContent = state.stack.length
      ? live
        ? "added to all images above, in standard deviations"
        : "this file holds one edit at a time, in whole steps; sfvq-jax explore renders any"
      : "add directions or lines by +";
    byId("stack").replaceChildren(...state.stack.map((edit) => this.edit(edit, live, about)));
    this.mark();
  }

  edit(edit, live, about) {
    const found = lookUp(edit.id, about);
    const most = live ? 6 : 2;
    const value = element("output", { textContent: `${signed(edit.strength)} σ` });
    const slider = element("input", {
      type: "range", min: -most, max: most, step: live ? 0.1 : 1, value: edit.strength,
      "aria-label": `strength of ${found.name}`,
      oninput: () => {
        edit.strength = Number(slider.value);
        value.textContent = `${signed(edit.strength)} σ`;
        this.changed({ dragging: true });
      },
      onchange: () => this.changed({ dragging: false }),
    });
    const layers = element("span", { className: "layers" });
    fillLayers(layers, edit.layers, about.model.layers, !live, (range) => {
      edit.layers = range;
      this.changed({});
    });
    const remove = element("button", {
      type: "button", className: "plain", textContent: "remove", "aria-label": `remove ${found.name}`,
      onclick: () => {
        this.changed({ stack: this.state.stack.filter((other) => other !== edit) });
        this.stack();
      },
    });
    const save = element("button", {
      type: "button", className: "plain", textContent: "save direction",
      onclick: () => saveDirection(edit, about),
    });
    return element(
      "li",
      {},
      element("div", { className: "name", textContent: found.name }),
      element("div", { className: "sliders" }, slider, value),
      element("div", { className: "row" }, layers, save, remove),
    );
  }
}

export function saveDirection(edit, about) {
  const content = asDirectionFile(edit, about);
  if (!content) {
    say("this page does not hold the vector: use sfvq-jax edit --line … --save-direction");
    return;
  }
  download(`${fileName(content.name)}.json`, JSON.stringify(content, null, 1), "application/json");
}

// Two numbers, the first and the last layer.
export function fillLayers(place, range, layers, disabled, changed) {
  const box = (index, name) =>
    element("input", {
      type: "number", min: 0, max: layers - 1, step: 1, value: range[index], disabled,
      "aria-label": `${name} layer`,
    });
  const [first, last] = [box(0, "first"), box(1, "last")];
  const tell = () => {
    const found = [first, last].map((b) => clamp(Math.round(Number(b.value) || 0), 0, layers - 1));
    if (found[0] > found[1]) found.reverse();
    [first.value, last.value] = found;
    changed(found);
  };
  first.onchange = last.onchange = tell;
  place.replaceChildren("layers ", first, " – ", last);
}

const VIRIDIS = ["#440154", "#46327e", "#365c8d", "#277f8e", "#1fa187", "#4ac16d", "#a0da39", "#fde725"]
  .map((text) => [1, 3, 5].map((i) => Number.parseInt(text.slice(i, i + 2), 16)));

// Distances between all codewords; a click goes to one.
export class Heat {
  constructor(about, changed) {
    this.about = about;
    this.frame = byId("heat-frame");
    const { values, every, most } = about.distances;
    const steps = Uint8Array.from(atob(values), (sign) => sign.charCodeAt(0));
    const side = Math.round(Math.sqrt(steps.length));
    const canvas = byId("heat");
    canvas.width = canvas.height = side;
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(side, side);
    steps.forEach((step, i) => {
      const t = (step / 255) * (VIRIDIS.length - 1);
      const j = Math.min(Math.floor(t), VIRIDIS.length - 2);
      for (let c = 0; c < 3; c++) {
        pixels.data[4 * i + c] = VIRIDIS[j][c] + (t - j) * (VIRIDIS[j + 1][c] - VIRIDIS[j][c]);
      }
      pixels.data[4 * i + 3] = 255;
    });
    context.putImageData(pixels, 0, 0);
    const at = (event) => {
      const box = this.frame.getBoundingClientRect();
      const place = (a, size) => clamp(Math.floor((a / size) * side), 0, side - 1);
      return [place(event.clientX - box.left, box.width), place(event.clientY - box.top, box.height)];
    };
    const told = byId("heat-told");
    const still = "between all codewords; dark beside the diagonal is a good order. Click to go to one.";
    told.textContent = still;
    this.frame.onpointermove = (event) => {
      const [i, j] = at(event);
      const distance = (steps[j * side + i] / 255) * most;
      told.textContent = `codewords ${i * every} and ${j * every}: ${distance.toPrecision(3)} apart`;
    };
    this.frame.onpointerleave = () => (told.textContent = still);
    this.frame.onclick = (event) => changed({ position: at(event)[0] * every });
  }

  move(position) {
    const share = `${((position + 0.5) / this.about.curve.codewords) * 100}%`;
    byId("heat-x").style.left = share;
    byId("heat-y").style.top = share;
  }
}

// What colours mean.
export const legend = (about, names) =>
  names.map((name, c) => {
    const swatch = element("span", { className: "swatch" });
    swatch.style.background = classColour(about, name, c);
    return element("span", {}, swatch, name);
  });

// The user's latents at a bar of the histogram.
export class OwnData {
  constructor(source) {
    this.source = source;
    this.data = source.about.data;
    byId("data-side").hidden = !this.data;
    if (!this.data) return;
    byId("data-told").textContent =
      `${this.data.rows.toLocaleString("en")} rows of ${this.data.name}` +
      (source.live ? "; click a bar above to see them" : "");
    byId("rows").hidden = true;
    const known = source.about.classes?.names ?? [];
    const more = this.data.classes.filter((name) => !known.includes(name));
    if (more.length) byId("legend").replaceChildren(...legend(source.about, this.data.classes));
  }

  async show({ codeword, label }) {
    const told = byId("rows-told");
    const name = label === null ? "" : ` of ${this.data.classes[label]}`;
    const found = await this.source.rows(codeword, label);
    const canvas = byId("rows");
    canvas.hidden = !found;
    if (!found) {
      told.textContent = this.source.live
        ? `no rows${name} at codeword ${codeword}`
        : "this file holds no images of them; sfvq-jax explore --data shows them";
      return;
    }
    const { rows, sheet } = found;
    canvas.width = rows.length * sheet.width;
    canvas.height = sheet.height;
    canvas.classList.toggle("small", sheet.width <= 64);
    const context = canvas.getContext("2d");
    rows.forEach((_, i) => sheet.draw(context, i, i * sheet.width, 0, sheet.width, sheet.height));
    told.textContent = `rows ${rows.join(", ")}${name}: the nearest to the curve at codeword ${codeword}`;
  }
}

