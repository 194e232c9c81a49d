// The page: its state, what changes it, and what is drawn when it has changed.

import { Labelling, Labels } from "./labels.js";
import { Card, Edits, Heat, OwnData, fillLayers, legend } from "./panels.js";
import { openSource } from "./source.js";
import { Film, Tracks } from "./tracks.js";
import {
  asCommand, asHash, asPython, byId, clamp, copy, download, element, fromHash, keep, kept, layersText,
  lineOf, lookUp, percent, photographsOf, round, say, signed,
} from "./words.js";

const SPEED = 1.5; // lines a second, while it plays
const KEYS = {
  "← →": "a tenth of a line; with Shift a codeword",
  "Page Up, Page Down": "eight codewords",
  "Home, End": "the ends of the curve",
  Space: "play",
  B: "before and after",
  P: "pin",
  L: "write a label",
  "1 … 9": "label the nearest codeword as before, and go on",
  "Ctrl Z": "undo a label",
};

async function main() {
  const source = await openSource();
  const { about } = source;
  const last = about.curve.codewords - 1;
  const state = fromHash(
    location.hash,
    {
      position: 0,
      seed: 0,
      photograph: about.photographs ? 0 : undefined, // the first that is shown; null for seeds
      truncation: about.seeds.truncation,
      along: 2,
      layers: [0, about.model.layers - 1],
      stack: [],
      before: false,
    },
    about,
  );
  const thumbs = await source.sheet("codewords");
  const labels = new Labels(source);
  const film = new Film(about, thumbs);
  const tracks = new Tracks(about, labels);
  const card = new Card(source);
  const heat = new Heat(about, change);
  const own = new OwnData(source);
  let playing = 0;
  let dragging = false;
  let due = false;
  let alive = null;

  const base = (path) => path.replace(/[\\/]+$/, "").split(/[\\/]/).pop();
  byId("subject").title = `${about.model.name} · ${about.curve.name}`;
  byId("subject").textContent =
    `${base(about.model.name)} · ${base(about.curve.name)} · ${about.curve.codewords} codewords` +
    `${about.model.space ? ` in ${about.model.space}` : ""}`;
  if (about.classes) byId("class-legend").replaceChildren(...legend(about, about.classes.names));
  document.title = `Walk the curve · ${base(about.model.name)}`;
  byId("scrubber").setAttribute("aria-valuemax", last);
  byId("position").max = last;
  const small = Math.max(...about.model.image.slice(0, 2)) <= 64;
  byId("picture").classList.toggle("small", small);
  const count = source.live ? about.seeds.count : about.strip.seeds;
  const seeds = Array.from({ length: count }, (_, i) =>
    element("canvas", { className: small ? "small" : "", role: "img", "aria-label": `seed ${i}` }),
  );
  byId("seeds").replaceChildren(...seeds);

  // What changes.

  function change(what) {
    if ("dragging" in what) dragging = what.dragging;
    const { dragging: _, ...rest } = what;
    Object.assign(state, rest);
    state.position = clamp(state.position, 0, last);
    later();
  }

  function later() {
    if (due) return;
    due = true;
    requestAnimationFrame(draw);
  }

  const edits = new Edits(source, state, thumbs, change);
  const labelling = new Labelling(labels, state, () => tracks.width && (tracks.draw(), later()), change);

  // What is drawn.

  function draw() {
    due = false;
    const { position } = state;
    const k = Math.round(position);
    const label = (at) => labels.of(at)?.text;
    film.draw(position, label);
    tracks.move(position);
    heat.move(position);
    card.show(position, state.layers);
    const scrubber = byId("scrubber");
    scrubber.setAttribute("aria-valuenow", round(position, 2));
    const kind = about.classes ? `, ${about.classes.names[about.classes.of_codewords[k]]}` : "";
    const said = label(k) ? `, labelled ${label(k)}` : "";
    scrubber.setAttribute("aria-valuetext", `${round(position, 2)}, nearest codeword ${k}${kind}${said}`);
    byId("readout").textContent = told(position, k, kind, said);
    const field = byId("position");
    if (document.activeElement !== field) field.value = round(position, 2).toFixed(2);
    source.show(asked(), paint);
    clearTimeout(draw.timer);
    draw.timer = setTimeout(remember, 250);
  }

  function told(position, k, kind, said) {
    const line = lineOf(position, about);
    const words = [`codeword ${k}${kind}${said}`, `line ${line}: ${percent(about.use[line])} of the latents`];
    if (about.dead.includes(k)) words.push("dead: no latent is nearest to it");
    if (about.outliers.includes(k)) words.push("outside the latents");
    if (about.inside) {
      const at = Math.round(position * ((about.places.length - 1) / last));
      if (!about.inside[at]) words.push("the image leaves the distribution here");
    }
    words.push(`perplexity ${about.perplexity.toFixed(1)} of ${about.use.length} lines`);
    return words.join(" · ");
  }

  function asked() {
    const edited = !state.before;
    return {
      position: round(state.position, 4),
      seed: state.seed,
      photograph: state.photograph ?? null,
      truncation: state.truncation,
      along: edited ? state.along : 0,
      layers: state.layers,
      stack: edited ? state.stack.map(({ id, strength, layers }) => ({ id, strength, layers })) : [],
      side: Math.min(512, Math.round(340 * (window.devicePixelRatio || 1))),
      dragging,
    };
  }

  function paint(here, moved) {
    put(byId("picture"), here);
    moved.forEach((tile, i) => put(seeds[i], tile));
    document.dispatchEvent(new CustomEvent("picture", { detail: state.position }));
  }

  function put(canvas, [sheet, index]) {
    if (canvas.width !== sheet.width || canvas.height !== sheet.height) {
      canvas.width = sheet.width;
      canvas.height = sheet.height;
    }
    sheet.draw(canvas.getContext("2d"), index, 0, 0, sheet.width, sheet.height);
  }

  // Once it rests: what a screen reader and the address tell.
  function remember() {
    try {
      history.replaceState(null, "", asHash(state));
    } catch {
      // within a notebook there is no address of its own
    }
    const line = lineOf(state.position, about);
    byId("picture").setAttribute("aria-label", `The image at position ${round(state.position, 2)}`);
    const kind = about.classes?.names[about.classes.of_codewords[Math.round(state.position)]];
    byId("caption").textContent =
      `position ${round(state.position, 2).toFixed(2)}${kind ? ` · ${kind}` : ""}` +
      (state.stack.length && !state.before && source.live ? ", with the stack" : "") +
      (about.model.rows ? ": the nearest row" : "");
    const what = state.before ? "before any edit" : moves(line);
    const own = photographsOf(state, about).map((i) => about.photographs.names[i]);
    seeds.forEach((canvas, i) => {
      canvas.setAttribute("aria-label", `${own[i] ?? `seed ${state.seed + i}`}, ${what}`);
      canvas.title = own[i] ?? "";
    });
    byId("view-note").textContent = own.length
      ? `photographs ${own.join(", ")}; ${what}`
      : about.model.rows
        ? `rows that seeds ${state.seed} to ${state.seed + count - 1} draw, and the nearest to each, ${what}`
        : `seeds ${state.seed} to ${state.seed + count - 1}, ${what}`;
  }

  function moves(line) {
    const along = `${signed(state.along)} σ along line ${line}`;
    if (!state.stack.length) return along;
    if (source.live) return `${along}, with the stack`;
    const [edit] = state.stack;
    return `${signed(edit.strength)} σ of ${lookUp(edit.id, about).name}`;
  }

  function controls() {
    byId("along").value = state.along;
    byId("along-value").textContent = `${signed(state.along)} σ`;
    byId("truncation").value = state.truncation ?? 1;
    byId("truncation-value").textContent = state.truncation === null ? "none" : state.truncation.toFixed(2);
    byId("seed").value = state.seed;
    const own = typeof state.photograph === "number";
    byId("moved").value = own ? "photographs" : "seeds";
    byId("seed-side").hidden = own;
    byId("photograph-side").hidden = !own;
    byId("photograph").value = String(state.photograph ?? 0);
    byId("truncation").disabled = !source.live || own || about.seeds.truncation === null;
    byId("other-seeds").textContent = own ? "The next ones" : "Other seeds";
    const { length } = own ? photographsOf(state, about) : seeds;
    seeds.forEach((canvas, i) => (canvas.hidden = i >= length));
    byId("before").setAttribute("aria-pressed", String(state.before));
    fillLayers(byId("layers"), state.layers, about.model.layers, !source.live, (layers) => change({ layers }));
    edits.stack();
  }

  // The strip.

  function jumpTo(position) {
    stop();
    change({ position });
  }

  function dragOf(place, start, moved, clicked) {
    place.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      stop();
      place.setPointerCapture(event.pointerId);
      const from = { x: event.clientX, position: state.position, far: 0 };
      start(event, from);
      const move = (next) => {
        from.far = Math.max(from.far, Math.abs(next.clientX - from.x));
        moved(next, from);
      };
      const end = (next) => {
        place.removeEventListener("pointermove", move);
        place.removeEventListener("pointerup", end);
        place.removeEventListener("pointercancel", end);
        change({ dragging: false });
        if (from.far < 4 && next.type === "pointerup") clicked(next);
      };
      place.addEventListener("pointermove", move);
      place.addEventListener("pointerup", end);
      place.addEventListener("pointercancel", end);
    });
  }

  const within = (event, place) => event.clientX - place.getBoundingClientRect().left;
  const filmCell = () => film.cell + 4;
  dragOf(
    film.canvas,
    () => {},
    (event, from) => change({ position: from.position - (event.clientX - from.x) / filmCell(), dragging: true }),
    (event) => {
      const off = (within(event, film.canvas) - film.width / 2) / filmCell();
      change({ position: Math.round(state.position + off) });
    },
  );
  const scrub = (event) => change({ position: tracks.positionAt(within(event, tracks.frame)), dragging: true });
  dragOf(byId("scrubber"), scrub, scrub, (event) => {
    const box = tracks.frame.getBoundingClientRect();
    const bar = about.data && tracks.dataAt(event.clientX - box.left, event.clientY - box.top);
    if (bar) own.show(bar).catch((error) => say(error.message));
  });
  byId("scrubber").addEventListener("keydown", (event) => {
    const steps = {
      ArrowLeft: -0.1, ArrowDown: -0.1, ArrowRight: 0.1, ArrowUp: 0.1, PageUp: 8, PageDown: -8,
      Home: -Infinity, End: Infinity,
    };
    let step = steps[event.key];
    if (step === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    let { position } = state;
    if (event.shiftKey && Math.abs(step) < 1) {
      position = step > 0 ? Math.floor(position + 1e-6) : Math.ceil(position - 1e-6);
      step = Math.sign(step);
    }
    jumpTo(round(clamp(position + step, 0, last), 4));
  });
  byId("position").onchange = () => jumpTo(Number(byId("position").value) || 0);

  let way = 1;
  function stop() {
    cancelAnimationFrame(playing);
    playing = 0;
    byId("play").setAttribute("aria-pressed", "false");
    byId("play").textContent = "Play";
    if (dragging) change({ dragging: false });
  }
  function play() {
    if (playing) {
      stop();
      return;
    }
    byId("play").setAttribute("aria-pressed", "true");
    byId("play").textContent = "Pause";
    let before = performance.now();
    const step = (now) => {
      let position = state.position + (way * SPEED * (now - before)) / 1000;
      before = now;
      if (position >= last || position <= 0) way = position <= 0 ? 1 : -1;
      change({ position, dragging: true });
      playing = requestAnimationFrame(step);
    };
    playing = requestAnimationFrame(step);
  }
  byId("play").onclick = play;

  // The images.

  byId("along").oninput = () => {
    change({ along: Number(byId("along").value), before: false, dragging: true });
    byId("before").setAttribute("aria-pressed", "false");
    byId("along-value").textContent = `${signed(state.along)} σ`;
  };
  for (const place of document.querySelectorAll(".of-truncation")) {
    place.hidden = about.seeds.truncation === null;
  }
  byId("truncation").oninput = () => {
    change({ truncation: Number(byId("truncation").value) });
    byId("truncation-value").textContent = state.truncation.toFixed(2);
  };
  for (const id of ["along", "truncation"]) byId(id).onchange = () => change({ dragging: false });
  if (!source.live) {
    byId("along").step = 1;
    byId("along").min = -2;
    byId("along").max = 2;
  }
  byId("seed").disabled = byId("other-seeds").disabled = !source.live;
  byId("photograph").disabled = !source.live;
  byId("kind-side").hidden = !source.live || !about.photographs;
  byId("photograph").replaceChildren(
    ...(about.photographs?.names ?? []).map((name, i) => element("option", { value: String(i), textContent: name })),
  );
  byId("moved").onchange = () => {
    change({ photograph: byId("moved").value === "photographs" ? 0 : null });
    controls();
  };
  byId("photograph").onchange = () => {
    change({ photograph: Number(byId("photograph").value) });
    controls();
  };
  byId("seed").onchange = () => {
    change({ seed: clamp(Math.round(Number(byId("seed").value) || 0), 0, 999999999) });
    controls();
  };
  byId("other-seeds").onclick = () => {
    if (typeof state.photograph === "number") {
      const { length } = about.photographs.names;
      change({ photograph: (state.photograph + Math.min(count, length)) % length });
    } else {
      change({ seed: state.seed + count });
    }
    controls();
  };
  const flip = () => {
    change({ before: !state.before });
    byId("before").setAttribute("aria-pressed", String(state.before));
  };
  byId("before").onclick = flip;
  byId("seeds-png").onclick = () => {
    const { width, height } = seeds[0];
    const drawn = seeds.filter((seed) => !seed.hidden);
    const canvas = element("canvas", { width: width * drawn.length, height });
    const context = canvas.getContext("2d");
    drawn.forEach((seed, i) => context.drawImage(seed, i * width, 0));
    canvas.toBlob((blob) => download("seeds.png", blob));
  };
  byId("film-png").onclick = () => film.asCanvas().toBlob((blob) => download("codewords.png", blob));

  // Traces that are shown.

  byId("attributes").replaceChildren(
    ...about.attributes.map(({ name }) => {
      const box = element("input", { type: "checkbox", checked: tracks.shown.has(name) });
      box.onchange = () => {
        if (box.checked) tracks.shown.add(name);
        else tracks.shown.delete(name);
        tracks.resize();
      };
      return element("label", {}, box, ` ${name}`);
    }),
  );
  byId("shown").hidden = !about.attributes.length;

  // Pins.

  const pinsKey = `sfvq-jax pins ${about.curve.sha256}`;
  let pins = kept(pinsKey, []);
  const showPins = () => {
    byId("pins").replaceChildren(
      ...pins.map((pin) => {
        const image = element("img", { src: pin.image, alt: "", className: small ? "small" : "" });
        const text = element("span", { textContent: pin.text });
        const restore = element("button", { type: "button", className: "restore" }, image, text);
        restore.onclick = () => {
          stop();
          change(fromHash(pin.hash, { ...state, stack: [] }, about));
          controls();
        };
        const drop = element("button", {
          type: "button", className: "drop", textContent: "×", "aria-label": `remove the pin ${pin.text}`,
          onclick: () => {
            pins = pins.filter((other) => other !== pin);
            keep(pinsKey, pins);
            showPins();
          },
        });
        return element("li", {}, restore, drop);
      }),
    );
  };
  const pin = () => {
    const canvas = element("canvas", { width: 64, height: 64 });
    canvas.getContext("2d").drawImage(byId("picture"), 0, 0, 64, 64);
    const text = round(state.position, 2).toFixed(2);
    pins = [...pins, { hash: asHash(state), text, image: canvas.toDataURL() }].slice(-24);
    keep(pinsKey, pins);
    showPins();
  };
  byId("pin").onclick = pin;
  pins = pins.filter((each) => String(each.image).startsWith("data:image/png;"));
  showPins();

  // Out again.

  byId("copy-link").onclick = () => {
    remember();
    copy(location.href, "link");
  };
  // rows are shown, not rendered: no command makes new images of them
  for (const id of ["copy-command", "copy-python"]) byId(id).hidden = about.model.rows;
  byId("copy-command").onclick = () => {
    const { command, why } = asCommand(state, about);
    if (command) copy(command, "command");
    else say(why);
  };
  byId("copy-python").onclick = () => copy(asPython(state, about), "Python");

  // Colours and keys.

  const themes = { system: "Auto", light: "Light", dark: "Dark" };
  const setTheme = (theme) => {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    byId("theme").textContent = themes[theme];
    byId("theme").setAttribute("aria-label", `Colours: ${theme === "system" ? "as the system" : theme}`);
    keep("sfvq-jax theme", theme);
    resize();
  };
  byId("theme").onclick = () => {
    const names = Object.keys(themes);
    const now = document.documentElement.dataset.theme ?? "system";
    setTheme(names[(names.indexOf(now) + 1) % names.length]);
  };
  byId("key-list").replaceChildren(
    ...Object.entries(KEYS).flatMap(([key, what]) => [
      element("dt", {}, element("kbd", { textContent: key })),
      element("dd", { textContent: what }),
    ]),
  );
  byId("help").onclick = () => byId("keys").showModal();
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input:not([type=range]):not([type=checkbox]), select, textarea, dialog");
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z" && !typing) {
      event.preventDefault();
      labelling.undo();
    }
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const onButton = event.target.closest("button, summary");
    if (event.key === " " && !onButton) play();
    else if (event.key === "b") flip();
    else if (event.key === "p") pin();
    else if (event.key === "l") byId("label").focus();
    else if (event.key === "?") byId("keys").showModal();
    else if (/^[1-9]$/.test(event.key)) labelling.quick(Number(event.key) - 1);
    else return;
    event.preventDefault();
  });

  function resize() {
    film.resize();
    tracks.resize();
    later();
  }
  new ResizeObserver(resize).observe(byId("strip"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", resize);
  window.addEventListener("hashchange", () => {
    Object.assign(state, fromHash(location.hash, state, about));
    controls();
    later();
  });
  source.failed = (error) => {
    const gone = error instanceof TypeError;
    if (alive === false && gone) return;
    alive = !gone;
    say(gone ? "the server does not answer: is sfvq-jax explore still running?" : error.message);
  };
  setTheme(kept("sfvq-jax theme", "system") in themes ? kept("sfvq-jax theme", "system") : "system");
  controls();
  document.body.dataset.ready = "1";
}

main().catch((error) => {
  document.body.append(element("p", { textContent: `This page cannot be shown: ${error.message}` }));
});
