// Two walls: the same values filed by window (natural) and by pixel (aligned); the shear
// between.

import { Controls, arrowStep, choice, h, paint, slider, still, svg } from "../dom.js";
import { pens, shade } from "../look.js";
import { align2nat, valueAt } from "../operators.js";
import { sigmoid } from "../detections.js";
import { ROW, drawShear, naturalOf } from "../shear.js";
import { chosenOf } from "../match.js";
import { missingValues } from "./window.js";

const CELLS = 7; // of each wall, along both sides
const WIDTH = 320;
const LEVEL = 0; // lam = 1: the same bins in both, and a shear of whole cells
const SECONDS = 2.5;

export class WallsView {
  constructor(root, store) {
    this.store = store;
    this.natural = this.wall(
      "natural",
      "Natural: a block is a window. Its bins are pixels around it.",
    );
    this.aligned = this.wall(
      "aligned",
      "Aligned: a block is a pixel. Its values are what every window says of it.",
    );
    this.says = h("p", { class: "fact", role: "status" });
    this.shear = svg("svg", {
      class: "shear",
      role: "img",
      "aria-label": "The shear from natural to aligned",
    });
    const percent = (share) => `${Math.round(100 * share)} %`;
    const range = { min: 0, max: 1, step: 0.01, shown: percent };
    const share = slider("natural → aligned", range, (value) =>
      store.settings({ share: value }),
    );
    const alpha = choice(
      "α, cells per bin",
      [
        [1, "1"],
        [2, "2"],
        [3, "3"],
      ],
      (value) => store.settings({ alpha: value }),
    );
    this.controls = new Controls({ share, alpha });
    const play = h("button", { type: "button", onclick: () => this.play() }, "Play");
    root.append(
      h(
        "p",
        {},
        "One tensor, real values of the framed piece of the picture (level 0, windows of 5 × 5 ",
        "bins), filed in two ways. Point at a value: the same number is marked in both walls, ",
        "and with it all that speaks of its pixel.",
      ),
      h("div", { class: "pair walls" }, this.natural.figure, this.aligned.figure),
      this.says,
      h(
        "section",
        { class: "shear-part" },
        h("h3", {}, "The step between is a shear"),
        h(
          "p",
          {},
          "One row of pixels, five bins. A row is a bin v, from −2 to 2; a column is a window, ",
          "and in the end a pixel. Every value moves sideways by α·v: what stood on a diagonal, ",
          "all that the windows say of one pixel, comes to stand in one column.",
        ),
        this.shear,
        h("div", { class: "row" }, play, share.element),
        alpha.element,
      ),
    );
  }

  wall(name, caption) {
    const canvas = h("canvas", {
      tabindex: 0,
      role: "img",
      "aria-label": `The ${name} wall; arrow keys move from value to value`,
      onpointermove: (event) => this.point(event, name),
      onpointerdown: (event) => this.point(event, name),
      onkeydown: (event) => this.key(event, name),
    });
    return { canvas, figure: h("figure", {}, canvas, h("figcaption", {}, caption)) };
  }

  render(state) {
    this.controls.show(state.settings);
    const { alpha, share } = state.settings;
    drawShear(this.shear, { values: naturalOf(ROW, 5, alpha), alpha, share });
    const missing = missingValues(state);
    if (missing) {
      this.says.textContent = missing;
      return;
    }
    const aligned = state.result.aligned(LEVEL, 0);
    if (this.of !== state.result) {
      this.of = state.result;
      this.whole = {
        aligned,
        natural: align2nat(aligned, { padValue: state.result.padValue }),
      };
    }
    this.first = corner(chosenOf(state), aligned);
    // The value in its natural place: bin (v, u) of the window of cell (y, x)
    const middle = [1, 3, this.first[0] + 3, this.first[1] + 3];
    this.entry = state.settings.entry ?? middle;
    for (const name of ["natural", "aligned"]) this.drawWall(name);
    this.describe();
  }

  layer(state) {
    if (missingValues(state) || !this.entry) return [];
    const [v, u, y, x] = this.entry;
    const window = { level: LEVEL, sizeId: 0, y, x };
    const [x0, y0, x1, y1] = state.result.geometry.window(window);
    const [px, py] = [4 * (x + u - 2), 4 * (y + v - 2)]; // a cell every 4 px
    const [top, left] = this.first.map((cell) => 4 * cell - 2);
    const piece = { x: left, y: top, width: 4 * CELLS, height: 4 * CELLS, class: "piece" };
    return [
      svg("rect", piece),
      svg("rect", { x: x0, y: y0, width: x1 - x0, height: y1 - y0, class: "window" }),
      svg("rect", { x: px - 2, y: py - 2, width: 4, height: 4, class: "bin" }),
    ];
  }

  /** An entry of one wall as the same value's place in the other. */
  other([v, u, y, x], to) {
    const sign = to === "aligned" ? 1 : -1;
    return [v, u, y + sign * (v - 2), x + sign * (u - 2)];
  }

  point(event, name) {
    if (!this.entry) return;
    const { left, top, width, height } = event.currentTarget.getBoundingClientRect();
    const along = (place, length) => {
      const cells = Math.min(Math.max((place / length) * CELLS, 0), CELLS - 1e-6);
      return [Math.floor(cells), Math.min(Math.floor((cells % 1) * 5), 4)];
    };
    const [y, v] = along(event.clientY - top, height);
    const [x, u] = along(event.clientX - left, width);
    this.follow([v, u, this.first[0] + y, this.first[1] + x], name);
  }

  key(event, name) {
    const step = arrowStep(event);
    if (!step || !this.entry) return;
    event.preventDefault();
    const [v, u, y, x] = name === "natural" ? this.entry : this.other(this.entry, "aligned");
    const at = (cell, bin, first, by) => {
      const place = Math.min(Math.max(5 * (cell - first) + bin + by, 0), 5 * CELLS - 1);
      return [first + Math.floor(place / 5), place % 5];
    };
    const [y1, v1] = at(y, v, this.first[0], step[0]);
    const [x1, u1] = at(x, u, this.first[1], step[1]);
    this.follow([v1, u1, y1, x1], name);
  }

  follow(entry, name) {
    this.store.settings({ entry: name === "natural" ? entry : this.other(entry, "natural") });
  }

  drawWall(name) {
    const colours = pens();
    const block = WIDTH / CELLS;
    const px = (block - 4) / 5;
    const followed = this.other(this.entry, "aligned");
    const values = this.whole[name];
    paint(this[name].canvas, WIDTH, WIDTH, (context) => {
      const each = (draw) => {
        for (let y = 0; y < CELLS; y++) {
          for (let x = 0; x < CELLS; x++) {
            for (let v = 0; v < 5; v++) {
              for (let u = 0; u < 5; u++) {
                const entry = [v, u, this.first[0] + y, this.first[1] + x];
                draw(entry, x * block + 2 + u * px, y * block + 2 + v * px);
              }
            }
          }
        }
      };
      each((entry, left, top) => {
        context.fillStyle = shade(sigmoid(valueAt(values, entry)), colours);
        context.fillRect(left, top, px - 0.5, px - 0.5);
      });
      each((entry, left, top) => {
        const [v, u, y, x] = name === "aligned" ? entry : this.other(entry, "aligned");
        if (y !== followed[2] || x !== followed[3]) return; // another pixel
        const same = v === followed[0] && u === followed[1];
        context.strokeStyle = colours.followed;
        context.lineWidth = same ? 3 : 1;
        context.strokeRect(left + 0.5, top + 0.5, px - 1.5, px - 1.5);
      });
    });
  }

  describe() {
    const [v, u, y, x] = this.entry;
    const [, , py, px] = this.other(this.entry, "aligned");
    const logit = valueAt(this.whole.natural, this.entry);
    this.says.textContent =
      `${logit.toFixed(2)}: the window of cell (${y}, ${x}) says it in bin (${v}, ${u}) of the ` +
      `pixel at cell (${py}, ${px}). Natural files it under the window, aligned under the pixel.`;
  }

  // --- the shear ---

  play() {
    const set = (share) => this.store.settings({ share });
    const from = this.store.state.settings.share;
    const target = from > 0.5 ? 0 : 1;
    if (still()) return set(target); // no motion: the end of it
    const begun = performance.now();
    const frame = (now) => {
      const t = Math.min((now - begun) / 1000 / SECONDS, 1);
      set(from + (target - from) * (3 * t * t - 2 * t * t * t));
      if (t < 1) requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  }
}

/** The first cell (y, x) of a wall around a detection, inside the tensor. */
function corner(detection, { shape: [, , H, W] }) {
  const [x0, y0, , y1] = detection?.box ?? [0, 0, 128, 128];
  const within = (centrePx, extent) =>
    Math.min(Math.max(Math.round(centrePx / 4) - 3, 0), extent - CELLS);
  // The object's left edge: inside and outside are both to be seen
  return [within((y0 + y1) / 2, H), within(x0, W)];
}
