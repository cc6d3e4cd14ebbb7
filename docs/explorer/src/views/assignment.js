// Who learns it: the windows that are positive for the chosen object, and why the others are
// not.

import { Controls, LEVELS, SIZES, choice, h, svg } from "../dom.js";
import { assign, rules } from "../assign.js";
import { CLASS_NAMES, SIDE_PX } from "../scene.js";
import { geometryOf } from "./window.js";
import { truthOf } from "../truth.js";

export class AssignmentView {
  constructor(root, store) {
    this.store = store;
    this.says = h("p", { class: "fact", role: "status" });
    this.list = h("ul", { class: "rules" });
    this.table = h("table", {});
    const level = choice("level", LEVELS, (value) =>
      store.settings({ level: value, cell: null }),
    );
    const sizeId = choice("window", SIZES, (value) => store.settings({ sizeId: value }));
    this.controls = new Controls({ level, sizeId });
    root.append(
      h(
        "p",
        {},
        "In training a window learns an object if it contains the object's box, is not much ",
        "more than twice as long, is centred on it, and no other object claims it. Drag the ",
        "shape; tap a dot, a window's centre.",
      ),
      level.element,
      sizeId.element,
      this.says,
      this.list,
      h("div", { class: "wide" }, this.table),
    );
  }

  render(state) {
    this.state = state;
    this.truth = truthOf(state);
    if (!this.truth) {
      this.says.textContent = "No shape is to be seen: add one.";
      return this.list.replaceChildren();
    }
    this.geometry = geometryOf(state);
    this.windows = [...this.geometry.windows(SIDE_PX, SIDE_PX)];
    this.owners = assign(
      this.windows.map(({ box }) => box),
      this.windows.map((w) => this.limits(w.level).unit),
      this.windows.map((w) => this.limits(w.level).slack),
      state.truths.map(({ box }) => box),
      this.limits(0).smallest,
    );
    this.mine = state.truths.indexOf(this.truth);
    const name = CLASS_NAMES[state.scene.shapes[this.truth.shape].kind];
    const positive = this.owners.filter((owner) => owner === this.mine).length;
    this.says.textContent =
      `Positive windows of this ${name}: ${positive} of ${this.windows.length}` +
      (positive ? "." : ". None fits, so training would pass it by.");
    const { sizeId, cell } = state.settings;
    this.level = state.settings.level ?? this.levelOf(sizeId);
    this.controls.show({ level: this.level, sizeId });
    this.explain(this.windowAt(cell, this.level, sizeId));
    this.writeTable();
  }

  /** The official rules: see tensormask_edu/config/model.py. */
  limits(level) {
    const { stridesPx, sidesBins } = this.geometry;
    return {
      unit: stridesPx[level],
      slack: stridesPx[level],
      smallest: (sidesBins[0] - 1) * stridesPx[0],
    };
  }

  /** How many windows of a level and size are positive for the object. */
  count(level, sizeId) {
    return this.windows.filter(
      (w, m) => w.level === level && w.sizeId === sizeId && this.owners[m] === this.mine,
    ).length;
  }

  /** The level on which most windows learn the object. */
  levelOf(sizeId) {
    const counts = LEVELS.map(([level]) => this.count(level, sizeId));
    return counts.indexOf(Math.max(...counts));
  }

  /** The window at a cell; without one the nearest to the object. */
  windowAt(cell, level, sizeId) {
    const [x0, y0, x1, y1] = this.truth.box;
    const stride = this.geometry.stridesPx[level];
    const last = Math.ceil(SIDE_PX / stride) - 1;
    const near = (middle) => Math.min(Math.round(middle / stride), last);
    const nearest = [near((y0 + y1) / 2), near((x0 + x1) / 2)];
    const [y, x] = cell?.level === level ? cell.place : nearest;
    const place = { level, sizeId, y: Math.min(y, last), x: Math.min(x, last) };
    return (this.shown = { ...place, box: this.geometry.window(place) });
  }

  layer(state) {
    if (!this.truth) return [];
    const { level } = this;
    const { sizeId } = state.settings;
    const [bx0, by0, bx1, by1] = this.truth.box;
    const [x0, y0, x1, y1] = this.shown.box;
    const parts = [
      svg("rect", { x: bx0, y: by0, width: bx1 - bx0, height: by1 - by0, class: "box" }),
      svg("rect", { x: x0, y: y0, width: x1 - x0, height: y1 - y0, class: "window" }),
    ];
    const centres = this.windows
      .map((w, m) => ({ ...w, positive: this.owners[m] === this.mine }))
      .filter((w) => w.level === level && w.sizeId === sizeId);
    const dots = (wanted) =>
      centres
        .filter(({ positive }) => positive === wanted)
        .map(({ box: [x0, y0, x1, y1] }) => `M${(x0 + x1) / 2} ${(y0 + y1) / 2}h0`)
        .join(""); // lines of no length, with round ends
    parts.push(svg("path", { d: dots(false), class: "centre" }));
    parts.push(svg("path", { d: dots(true), class: "centre positive" }));
    return parts;
  }

  /** A tap on the picture chooses the window whose centre is nearest. */
  tap([x, y]) {
    if (!this.truth) return;
    const stride = this.geometry.stridesPx[this.level];
    const place = [Math.round(y / stride), Math.round(x / stride)];
    this.store.settings({ cell: { level: this.level, place } });
  }

  explain(window) {
    const { unit, slack, smallest } = this.limits(window.level);
    const { box } = this.truth;
    const found = rules(window.box, unit, slack, box, smallest);
    const side = window.box[2] - window.box[0];
    const longest = Math.max(box[2] - box[0], box[3] - box[1]);
    const middle = (b, k) => (b[k] + b[k + 2]) / 2;
    const apart = Math.hypot(
      middle(box, 0) - middle(window.box, 0),
      middle(box, 1) - middle(window.box, 1),
    );
    const others = this.state.truths.filter(
      (truth) =>
        truth !== this.truth && rules(window.box, unit, slack, truth.box, smallest).positive,
    );
    const twice = 2 * longest >= smallest ? `2 × ${longest}` : `${smallest}`;
    const allowed = `${twice} + ${slack} px, a cell more`;
    const lines = [
      [found.contained, "contains the box", "some of the box lies outside"],
      [
        found.fits,
        `not too long: ${side} px, at most ${allowed}`,
        `too long: ${side} px, more than ${allowed}`,
      ],
      [
        found.central,
        `centred: ${apart.toFixed(1)} ≤ ${unit} px apart`,
        `not centred: ${apart.toFixed(1)} > ${unit} px apart`,
      ],
      [
        !others.length,
        "no other object claims it",
        "another object claims it too, so neither gets it",
      ],
    ];
    const verdict = found.positive && !others.length;
    this.list.replaceChildren(
      h(
        "li",
        { class: "verdict" },
        `The window at cell (${window.y}, ${window.x}), ${side} px: `,
        h("b", { class: verdict ? "word positive" : "" }, verdict ? "positive" : "negative"),
      ),
      ...lines.map(([holds, yes, no]) =>
        h("li", { class: holds ? "yes" : "no" }, holds ? yes : no),
      ),
    );
  }

  writeTable() {
    const cell = (level, sizeId) => {
      const number = this.count(level, sizeId);
      const side = this.geometry.sidePx(level, sizeId);
      return h(
        "td",
        {},
        number ? h("b", { class: "word positive" }, String(number)) : "0",
        h("small", {}, ` of ${side} px`),
      );
    };
    this.table.replaceChildren(
      h("caption", {}, "Its positive windows, level by level"),
      h(
        "tr",
        {},
        ["level", "5 × 5", "7 × 7"].map((word) => h("th", {}, word)),
      ),
      ...[0, 1, 2, 3].map((k) => h("tr", {}, h("td", {}, String(k)), cell(k, 0), cell(k, 1))),
    );
  }
}
