// Labels: on codewords, lines and stretches; saved at once, each step can be undone.

import { classColour } from "./tracks.js";
import { byId, clamp, download, element, lineOf, round, say } from "./words.js";

export class Labels {
  constructor(source) {
    this.source = source;
    this.about = source.about;
    this.told(this.about.labels);
  }

  told({ labels, revision, file }) {
    this.list = labels;
    this.revision = revision;
    this.file = file;
  }

  get names() {
    return [...new Set(this.list.filter((l) => !l.leave_out).map((l) => l.text))];
  }

  colour(text) {
    return classColour(this.about, text, Math.max(this.names.indexOf(text), 0));
  }

  // Of a codeword the latest label that covers it, as sfvq-jax augment takes it.
  of(k) {
    for (let i = this.list.length - 1; i >= 0; i--) {
      const label = this.list[i];
      if (Math.ceil(label.start) <= k && k <= Math.floor(label.stop)) return label;
    }
    return null;
  }

  agreeing() {
    const out = this.list.filter((label) => label.leave_out);
    const text = (k) => {
      const label = this.of(k);
      return label && !label.leave_out ? label.text : null;
    };
    return this.about.use.filter(
      (_, j) =>
        text(j) !== null &&
        text(j) === text(j + 1) &&
        !out.some((label) => label.start < j + 1 && label.stop > j),
    ).length;
  }
}

export class Labelling {
  constructor(labels, state, redraw, changed) {
    Object.assign(this, { labels, state, redraw, changed, past: [] });
    const form = byId("label-form");
    form.onsubmit = (event) => {
      event.preventDefault();
      this.label(byId("label").value);
    };
    byId("target").onchange = () => {
      const stretch = byId("target").value === "stretch";
      byId("stretch").hidden = !stretch;
      if (stretch) {
        byId("stretch-start").value = Math.floor(state.position);
        byId("stretch-stop").value = Math.ceil(state.position);
      }
    };
    byId("undo").onclick = () => this.undo();
    byId("labels-json").onclick = () => download("labels.json", this.asJson(), "application/json");
    byId("labels-csv").onclick = () => download("labels.csv", this.asCsv(), "text/csv");
    this.show();
  }

  target() {
    const { position } = this.state;
    const { about } = this.labels;
    const last = about.curve.codewords - 1;
    const kind = byId("target").value;
    if (kind === "codeword") return [Math.round(position), Math.round(position)];
    if (kind === "line") return [lineOf(position, about), lineOf(position, about) + 1];
    const ends = ["stretch-start", "stretch-stop"].map((id) =>
      clamp(Number(byId(id).value) || 0, 0, last),
    );
    return ends.sort((a, b) => a - b);
  }

  async label(text) {
    const leaveOut = byId("leave-out").checked;
    const said = text.trim() || (leaveOut ? "leave out" : "");
    if (!said) {
      say("write what it shows first");
      byId("label").focus();
      return;
    }
    const [start, stop] = this.target();
    const others = this.labels.list.filter((l) => l.start !== start || l.stop !== stop);
    const label = { start: round(start, 4), stop: round(stop, 4), text: said, leave_out: leaveOut };
    const saved = this.set([...others, label]);
    // at once, so that the next key labels the next codeword however long a disk takes
    if (byId("target").value !== "stretch") {
      const { codewords } = this.labels.about.curve;
      const next = byId("target").value === "line" ? stop + 0.5 : stop + 1;
      this.changed({ position: Math.min(next, codewords - 1) });
    }
    if (document.activeElement === byId("label")) byId("label").select();
    await saved;
  }

  async set(list, undoing = false) {
    const before = this.labels.list;
    if (!undoing) this.past = [...this.past.slice(-199), before];
    this.labels.list = list;
    this.show();
    // one after the other, so that each builds on what the one before it saved
    this.saving = (this.saving ?? Promise.resolve()).then(() => this.save());
    await this.saving;
  }

  async save() {
    try {
      const kept = await this.labels.source.save(this.labels.list, this.labels.revision);
      this.labels.revision = kept.revision;
      if (kept.others) {
        this.labels.told(kept);
        this.past = [];
        say("another window changed the labels: these are its; do your last step again");
        this.show();
      }
    } catch (error) {
      say(`not saved: ${error.message}`);
    }
  }

  undo() {
    const before = this.past.pop();
    if (before) this.set(before, true);
    else say("there is nothing to undo");
  }

  show() {
    const { labels } = this;
    const { about } = labels;
    const count = about.curve.codewords;
    const done = Array.from({ length: count }, (_, k) => labels.of(k)).filter(Boolean).length;
    const where = labels.file ? `; kept in ${labels.file}` : labels.source.live ? "" : "; kept in this browser";
    byId("labels-told").textContent =
      `${done} of ${count} codewords labelled, ${labels.agreeing()} lines agree${where}`;
    byId("undo").disabled = !this.past.length;
    const names = labels.names;
    const known = [...new Set([...names, ...(about.classes?.names ?? [])])];
    byId("known-labels").replaceChildren(...known.map((name) => element("option", { value: name })));
    byId("quick").replaceChildren(
      ...names.slice(0, 9).map((name, i) =>
        element(
          "button",
          { type: "button", onclick: () => this.quick(i) },
          element("kbd", { textContent: String(i + 1) }),
          ` ${name}`,
        ),
      ),
    );
    const place = ({ start, stop }) =>
      start === stop ? `${start}` : `${round(start, 2)}–${round(stop, 2)}`;
    const sorted = [...labels.list].sort((a, b) => a.start - b.start || a.stop - b.stop);
    byId("labels").replaceChildren(
      ...sorted.map((label) => {
        const swatch = element("span", { className: "swatch" });
        swatch.style.background = labels.colour(label.text);
        const go = element("button", {
          type: "button", className: "plain go", textContent: `${place(label)} ${label.text}`,
          onclick: () => this.changed({ position: (label.start + label.stop) / 2 }),
        });
        const drop = element("button", {
          type: "button", className: "plain", textContent: "×",
          "aria-label": `remove the label ${label.text} of ${place(label)}`,
          onclick: () => this.set(labels.list.filter((other) => other !== label)),
        });
        return element("li", { className: label.leave_out ? "left-out" : "" }, swatch, go, drop);
      }),
    );
    this.redraw();
  }

  quick(index) {
    const name = this.labels.names[index];
    if (name) this.label(name);
  }

  asJson() {
    const { about } = this.labels;
    const content = {
      format_version: 1,
      sfvq_jax: about.sfvq_jax,
      curve_sha256: about.curve.sha256,
      labels: this.labels.list,
    };
    return `${JSON.stringify(content, null, 1)}\n`;
  }

  asCsv() {
    // what begins with = + - @ would be a formula to a spreadsheet
    const cell = (text) => `"${text.replace(/^([=+\-@])/, "'$1").replaceAll('"', '""')}"`;
    const rows = this.labels.list.map((l) => [l.start, l.stop, cell(l.text), Number(l.leave_out)]);
    return [["start", "stop", "text", "leave_out"], ...rows].map((row) => `${row.join(",")}\n`).join("");
  }
}
