// Words: numbers as text, elements, the permalink, and what reproduces a view elsewhere.

export const clamp = (value, least, most) => Math.min(Math.max(value, least), most);

export const signed = (value, digits = 1) =>
  `${value > 0 ? "+" : value < 0 ? "−" : ""}${Math.abs(value).toFixed(digits)}`;

export const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;

// An element with properties, attributes (by a name with -) and children; text stays text.
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes("-") || key === "role" || key === "for" || key === "list") {
      made.setAttribute(key, value);
    } else {
      made[key] = value;
    }
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export const byId = (id) => document.getElementById(id);

export function say(text) {
  const toast = byId("toast");
  toast.textContent = text;
  toast.classList.add("shown");
  clearTimeout(say.timer);
  say.timer = setTimeout(() => toast.classList.remove("shown"), 3500);
}

export function layersText([first, last], layers) {
  if (first === 0 && last === layers - 1) return "all layers";
  return first === last ? `layer ${first}` : `layers ${first}–${last}`;
}

// The permalink. What it lacks keeps its first value; what makes no sense is left out.

export function asHash(state) {
  const words = new URLSearchParams();
  words.set("position", String(round(state.position, 3)));
  words.set("seed", String(state.seed));
  if (state.photograph !== undefined) words.set("photograph", String(state.photograph ?? "none"));
  if (state.truncation !== null) words.set("truncation", String(state.truncation));
  words.set("along", String(state.along));
  words.set("layers", state.layers.join("-"));
  for (const edit of state.stack) {
    words.append("edit", `${edit.id}*${edit.strength}@${edit.layers.join("-")}`);
  }
  if (state.before) words.set("before", "1");
  return `#${words.toString().replaceAll("%3A", ":").replaceAll("%40", "@")}`;
}

export function fromHash(hash, state, about) {
  const words = new URLSearchParams(hash.replace(/^#/, ""));
  const last = about.curve.codewords - 1;
  const number = (text, least, most, otherwise) => {
    const value = Number(text);
    return text === null || text === "" || !(value >= least && value <= most) ? otherwise : value;
  };
  const range = (text, otherwise) => {
    const found = /^(\d+)-(\d+)$/.exec(text ?? "");
    if (!found) return otherwise;
    const [first, stop] = [Number(found[1]), Number(found[2])];
    return first <= stop && stop < about.model.layers ? [first, stop] : otherwise;
  };
  const stack = [];
  for (const text of words.getAll("edit").slice(0, about.live ? 16 : 1)) {
    const found = /^([a-z]+:\d+)\*(-?[\d.]+)@(\d+-\d+)$/.exec(text);
    const known = found && lookUp(found[1], about);
    if (known) {
      stack.push({
        id: found[1],
        strength: number(found[2], -20, 20, 0),
        layers: range(found[3], known.layers),
      });
    }
  }
  const truncation =
    state.truncation === null ? null : number(words.get("truncation"), 0, 1, state.truncation);
  const shown = words.get("photograph");
  const photographs = about.live ? (about.photographs?.names.length ?? 0) : 0;
  return {
    ...state,
    photograph:
      shown === "none" && photographs
        ? null
        : number(/^\d+$/.test(shown) ? shown : null, 0, photographs - 1, state.photograph),
    position: number(words.get("position"), 0, last, state.position),
    seed: Math.round(number(words.get("seed"), 0, 999999999, state.seed)),
    truncation,
    along: number(words.get("along"), -20, 20, state.along),
    layers: range(words.get("layers"), state.layers),
    stack,
    before: words.get("before") === "1",
  };
}

export const round = (value, digits) => Math.round(value * 10 ** digits) / 10 ** digits;

// A line ("line:12") or a direction ("direction:3"): its name, layers, unit and vector.
export function lookUp(id, about) {
  const [kind, text] = id.split(":");
  const index = Number(text);
  if (kind === "direction") return about.directions[index] ?? null;
  if (kind !== "line" || !(index < about.curve.codewords - 1)) return null;
  return {
    id,
    line: index,
    name: `line ${index}`,
    layers: [0, about.model.layers - 1],
    unit: about.units[index],
    measured: {},
  };
}

// What reproduces a view.

const quoted = (text) => (/^[\w./:=@%+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
const python = (text) => JSON.stringify(text);

export const seedsOf = (state, about) => `${state.seed}-${state.seed + about.seeds.count - 1}`;

// Which photographs are shown, by their order on the page; none where seeds are.
export function photographsOf(state, about) {
  if (typeof state.photograph !== "number") return [];
  const { length } = about.photographs.names;
  const count = Math.min(about.seeds.count, length);
  return Array.from({ length: count }, (_, i) => (state.photograph + i) % length);
}

const rowsOf = (state, about) =>
  photographsOf(state, about).map((i) => about.photographs.rows[i]).join(",");

// A command for the shell, or a sentence that says why there is none.
export function asCommand(state, about) {
  const model = quoted(about.model.name);
  const curve = quoted(about.curve.name);
  const rows = rowsOf(state, about);
  const tail = rows
    ? ` --latents ${quoted(about.photographs.file)} --rows ${rows} -o edited/`
    : ` --seeds ${seedsOf(state, about)}` +
      `${state.truncation === null ? "" : ` --truncation ${state.truncation}`}` +
      " -o edited/";
  const edits = state.before ? [] : state.stack.filter((edit) => edit.strength !== 0);
  if (!edits.length) {
    const line = lineOf(state.position, about);
    const strength = state.before ? 0 : state.along;
    return {
      command:
        `sfvq-jax edit ${model} ${curve} --line ${line} --layers ${state.layers.join("-")}` +
        ` --strength ${strength}${tail}`,
    };
  }
  const files = edits.map((edit) => lookUp(edit.id, about));
  const plain = files.every(
    (found, i) => found.file && String(found.layers) === String(edits[i].layers),
  );
  if (state.along !== 0) {
    return {
      why: "a command moves along a line or along directions: set the strength of the line to 0, or copy as Python",
    };
  }
  if (!plain) {
    return {
      why: "a command takes direction files in their own layers: save the edits as directions, or copy as Python",
    };
  }
  const words = files.map((found, i) => ` --direction ${quoted(`${found.file}:${edits[i].strength}`)}`);
  return { command: `sfvq-jax edit ${model}${words.join("")} --strength 1${tail}` };
}

const latentsIn = (file) =>
  `jnp.load(${python(file)})${file.endsWith(".npz") ? '["latents"]' : ""}`;

export function asPython(state, about) {
  const rows = rowsOf(state, about);
  const line = lineOf(state.position, about);
  const truncation = state.truncation === null ? "" : `, truncation=${state.truncation}`;
  const edits = state.before ? [] : state.stack.filter((edit) => edit.strength !== 0);
  const lines = [
    "from pathlib import Path",
    "",
    "import jax",
    "import jax.numpy as jnp",
    "import ports, sfvq_jax",
    "from sfvq_jax.interpret import Direction, edit_latents, line_direction, load_direction",
    "from sfvq_jax.views import render_images",
    "",
    `record = sfvq_jax.load_curve(${python(about.curve.name)})`,
    `name = ${python(about.model.name)}`,
    "folder = name if Path(name).exists() else ports.bundled(name)",
    "model = ports.load(folder).space_named(record.space)",
    "spread = model.sample(jax.random.key(0), 2**14)",
    "",
    `point = sfvq_jax.decode(record.curve, jnp.array([${round(state.position, 3)}]))`,
    ...(rows
      ? [`rows = jnp.array([${rows}])`, `w = jnp.asarray(${latentsIn(about.photographs.file)})[rows]`]
      : [
          `seeds = range(${state.seed}, ${state.seed + about.seeds.count})`,
          `w = jnp.concatenate([model.sample(jax.random.key(seed), 1${truncation}) for seed in seeds])`,
        ]),
  ];
  const along = state.before ? 0 : state.along;
  const made = (vector, layers) => `Direction.along(${vector}, (${layers.join(", ")}), spread)`;
  const directions = edits.map((edit) => {
    const found = lookUp(edit.id, about);
    return found.file
      ? `load_direction(${python(found.file)}).direction.replace(layers=(${edit.layers.join(", ")}))`
      : made(`line_direction(record.curve, ${found.line})`, edit.layers);
  });
  const strengths = edits.map((edit) => edit.strength);
  if (edits.length) {
    lines.push(`stack = [${directions.map((text) => `\n    ${text},`).join("")}\n]`);
    lines.push(`strengths = [${strengths.join(", ")}]`);
    lines.push("here = edit_latents(point, stack, jnp.array([strengths]), model.num_layers)[:, 0]");
  } else {
    lines.push("here = point", "stack, strengths = [], []");
  }
  lines.push(
    `line = ${made(`line_direction(record.curve, ${line})`, state.layers)}`,
    `steps = jnp.array([[*strengths, ${along.toFixed(2)}]])`,
    "moved = edit_latents(w, [*stack, line], steps, model.num_layers)[:, 0]",
    "image, images = render_images(model, here), render_images(model, moved)",
  );
  return `${lines.join("\n")}\n`;
}

export const lineOf = (position, about) =>
  Math.min(Math.floor(position), about.curve.codewords - 2);

// A direction as the file that `sfvq-jax edit --direction` reads; null where the vector is not here.
export function asDirectionFile(edit, about) {
  const found = lookUp(edit.id, about);
  const vector = found.vector ?? lineVector(found.line, about);
  if (!vector) return null;
  const own = found.file && String(found.layers) === String(edit.layers);
  return {
    format_version: 1,
    sfvq_jax: about.sfvq_jax,
    name: own ? found.name : `${found.name}, ${layersText(edit.layers, about.model.layers)}`,
    space: about.curve.space,
    model_hash: about.curve.model_hash,
    layers: edit.layers,
    unit: found.unit,
    source:
      found.source ?? { curve_sha256: about.curve.sha256, codewords: [found.line, found.line + 1] },
    measured: own ? found.measured : {},
    vector,
  };
}

function lineVector(line, about) {
  if (!about.curve.vectors) return null;
  const bytes = Uint8Array.from(atob(about.curve.vectors), (sign) => sign.charCodeAt(0));
  const all = new DataView(bytes.buffer);
  const d = about.model.dimensions;
  const at = (k, i) => all.getFloat32(4 * (k * d + i), true);
  const step = Array.from({ length: d }, (_, i) => at(line + 1, i) - at(line, i));
  const length = Math.hypot(...step);
  return length > 0 ? step.map((x) => x / length) : null;
}

export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    say(`${what} copied`);
  } catch {
    const area = element("textarea", { value: text });
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    say(done ? `${what} copied` : "this browser copies nothing here");
  }
}

export function download(name, content, type) {
  const blob = content instanceof Blob ? content : new Blob([content], { type });
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

export const fileName = (text) =>
  text.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "").slice(0, 60) || "direction";

// Kept in this browser, where it keeps anything.
export function kept(key, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(key)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

export function keep(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
  } catch {
    // a file or a frame that may keep nothing
  }
}
