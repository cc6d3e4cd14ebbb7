// Open a mask: the window of a detection, its bins, and the aligned values each bin is made of.

import { arrowStep, h, paint, svg } from "../dom.js";
import { SHAPES } from "../geometry.js";
import { chosenOf } from "../match.js";
import { pens, shade } from "../look.js";
import { contributions, swapAlign2natWindow, valueAt } from "../operators.js";
import { binsOf, sigmoid } from "../detections.js";
import { CLASS_NAMES } from "../scene.js";

const WIDTH = 320; // of both figures, CSS pixels before they are fitted to the screen

export class WindowView {
  constructor(root, store) {
    this.store = store;
    this.title = h("p", { class: "fact" });
    this.bins = h("canvas", {
      tabindex: 0,
      role: "img",
      "aria-label": "Bins of the window; arrow keys move from bin to bin",
      onpointermove: (event) => this.point(event),
      onpointerdown: (event) => this.point(event),
      onkeydown: (event) => this.key(event),
    });
    this.cells = h("canvas", {
      role: "img",
      "aria-label": "The aligned cells the bin is read from",
    });
    this.sum = h("div", { class: "sum" });
    root.append(
      h(
        "p",
        {},
        "A mask lives in a window, a square around a cell. Cells are the points of a grid, fine ",
        "for small objects and coarse for large ones: a level. A bin is one part of a window, ",
        "and one number, read from the aligned tensor of that level.",
      ),
      this.title,
      h(
        "div",
        { class: "pair" },
        h(
          "figure",
          { class: "window-bins" },
          this.bins,
          h(
            "figcaption",
            {},
            "The window. A full shade is surely object; point at a bin, and see on the right and ",
            "below what it is read from.",
          ),
        ),
        h(
          "figure",
          {},
          this.cells,
          h(
            "figcaption",
            {},
            "The aligned tensor: the cells around the bin, each with its V × U values. Framed: ",
            "what the bin is read from.",
          ),
        ),
      ),
      this.sum,
    );
  }

  render(state) {
    const detection = chosenOf(state);
    const missing = missingValues(state);
    this.title.textContent = detection ? titleOf(detection, state) : notFound(state);
    this.detection = detection;
    if (!detection || missing) {
      this.open = null;
      this.sum.replaceChildren(h("p", {}, detection ? missing : ""));
      for (const canvas of [this.bins, this.cells]) paint(canvas, WIDTH, WIDTH, () => {});
      if (detection) this.drawStored(detection, geometryOf(state));
      return;
    }
    this.open = opened(detection, state.result);
    const { side } = this.open;
    this.bin = (state.settings.bin ?? leastSure(this.open)).map((i) => Math.min(i, side - 1));
    this.drawBins();
    this.drawCells();
    this.writeSum();
  }

  /** The window and the bin, in the picture. */
  layer(state) {
    const detection = chosenOf(state);
    if (!detection) return [];
    const geometry = geometryOf(state);
    const [x0, y0, x1, y1] = geometry.window(detection.window);
    const parts = [
      svg("rect", { x: x0, y: y0, width: x1 - x0, height: y1 - y0, class: "window" }),
    ];
    if (this.open && this.bin) {
      const px = geometry.binPx(detection.window.level);
      const [v, u] = this.bin;
      const place = { x: x0 + u * px, y: y0 + v * px, width: px, height: px };
      parts.push(svg("rect", { ...place, class: "bin" }));
    }
    return parts;
  }

  // --- the hand ---

  point(event) {
    if (!this.open) return;
    const { left, top, width, height } = this.bins.getBoundingClientRect();
    const { side } = this.open;
    const at = (place, length) =>
      Math.min(Math.max(Math.floor((place / length) * side), 0), side - 1);
    const bin = [at(event.clientY - top, height), at(event.clientX - left, width)];
    this.store.settings({ bin });
  }

  key(event) {
    const step = arrowStep(event);
    if (!step || !this.open) return;
    event.preventDefault();
    const within = (i) => Math.min(Math.max(i, 0), this.open.side - 1);
    this.store.settings({ bin: this.bin.map((i, axis) => within(i + step[axis])) });
  }

  // --- drawing ---

  drawBins() {
    const { side, logits } = this.open;
    const colours = pens();
    const px = WIDTH / side;
    paint(this.bins, WIDTH, WIDTH, (context) => {
      fill(context, side, (v, u) => sigmoid(logits[v * side + u]), colours);
      const [v, u] = this.bin;
      mark(context, [u * px, v * px, px, px], colours.followed);
    });
  }

  /** The bins alone, of a result that was stored without its tensors. */
  drawStored(detection, geometry) {
    const side = geometry.sideBins(detection.window.level, detection.window.sizeId);
    const bin = binsOf(detection, geometry);
    paint(this.bins, WIDTH, WIDTH, (context) => fill(context, side, bin, pens()));
  }

  drawCells() {
    const { aligned, lam, cell } = this.open;
    const terms = contributions(aligned.shape, lam, cell, ...this.bin);
    this.open.terms = terms;
    const [V, U] = aligned.shape;
    const around = (axis, i) => {
      const all = terms.map(({ entry }) => entry[axis]);
      return all.length ? [Math.min(...all) - 1, Math.max(...all) + 1] : [i - 1, i + 1];
    };
    const [ys, xs] = [around(2, 0), around(3, 0)];
    const count = Math.max(ys[1] - ys[0], xs[1] - xs[0]) + 1;
    const block = WIDTH / count;
    const px = (block - 6) / Math.max(V, U);
    const colours = pens();
    const place = ([v, u, y, x]) => [
      (x - xs[0]) * block + 3 + u * px,
      (y - ys[0]) * block + 3 + v * px,
    ];
    paint(this.cells, WIDTH, WIDTH, (context) => {
      context.font = "10px system-ui";
      for (let y = ys[0]; y <= ys[1]; y++) {
        for (let x = xs[0]; x <= xs[1]; x++) {
          for (let v = 0; v < V; v++) {
            for (let u = 0; u < U; u++) {
              const probability = sigmoid(valueAt(aligned, [v, u, y, x], -6));
              context.fillStyle = shade(probability, colours);
              const [left, top] = place([v, u, y, x]);
              context.fillRect(left, top, px - 0.5, px - 0.5);
            }
          }
        }
      }
      for (const { entry } of terms) mark(context, [...place(entry), px, px], colours.followed);
    });
  }

  writeSum() {
    const { aligned, terms, logits, side, padValue } = this.open;
    const [v, u] = this.bin;
    const logit = logits[v * side + u];
    const outside = 1 - terms.reduce((total, { weight }) => total + weight, 0);
    const rows = terms.map(({ entry, weight }) =>
      h(
        "li",
        {},
        h("b", {}, `${share(weight)} × ${valueAt(aligned, entry).toFixed(2)}`),
        h("small", {}, `v ${entry[0]} u ${entry[1]} · y ${entry[2]} x ${entry[3]}`),
      ),
    );
    if (outside > 1e-9) {
      rows.push(
        h(
          "li",
          { class: "pad" },
          h("b", {}, `${share(outside)} × ${padValue}`),
          h("small", {}, "outside the tensor: the pad"),
        ),
      );
    }
    this.sum.replaceChildren(
      h(
        "p",
        {},
        `Bin (${v}, ${u}) is the sum of ` +
          (terms.length === 1 ? "1 aligned value" : `${terms.length} aligned values`) +
          `${outside > 1e-9 ? " and the pad" : ""}, weight × value. Below each: v and u, which ` +
          "value of a cell; y and x, which cell.",
      ),
      h("ol", {}, rows),
      h(
        "p",
        { class: "total" },
        `= ${logit.toFixed(3)}, a probability of ${sigmoid(logit).toFixed(3)}`,
      ),
    );
  }
}

/** The bin whose logit is nearest to 0: on the outline, where neighbours differ. */
function leastSure({ logits, side }) {
  const at = logits.reduce(
    (best, logit, i) => (Math.abs(logit) < Math.abs(logits[best]) ? i : best),
    0,
  );
  return [Math.floor(at / side), at % side];
}

/** 9/64 where it is a fraction of a power of two, else three digits. */
function share(weight) {
  for (const below of [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]) {
    const above = weight * below;
    if (Math.abs(above - Math.round(above)) < 1e-9)
      return below === 1 ? `${above}` : `${Math.round(above)}/${below}`;
  }
  return weight.toFixed(3);
}

/** All bins of a window as shades; bin(v, u) says how surely each is object, 0 to 1. */
function fill(context, side, bin, colours) {
  const px = WIDTH / side;
  const gap = side > 30 ? 0.25 : 0.5;
  for (let v = 0; v < side; v++) {
    for (let u = 0; u < side; u++) {
      context.fillStyle = shade(bin(v, u), colours);
      context.fillRect(u * px, v * px, px - gap, px - gap);
    }
  }
}

function mark(context, [left, top, width, height], colour) {
  context.strokeStyle = colour;
  context.lineWidth = 2;
  context.strokeRect(left + 0.5, top + 0.5, width - 1.5, height - 1.5);
}

export const geometryOf = ({ result }) => result?.geometry ?? SHAPES;

/** What to say where no detection is open. */
export function notFound({ shape }) {
  return shape == null
    ? "Nothing is found here: add a shape."
    : "The model does not find the chosen shape: move it, or choose another.";
}

/** Why there are no aligned values to show; null where there are. */
export function missingValues({ result }) {
  if (!result) return "The values come with the model, which is still loading.";
  if (result.aligned(0, 0)) return null;
  return (
    "This file has no inner tensors: tensormask-export onnx CHECKPOINT MODEL.onnx --inner " +
    "aligned writes one that has."
  );
}

/** The tensor behind a detection, its place in it, and all bins of its window. */
export function opened({ window: { level, sizeId, y, x } }, result) {
  const aligned = result.aligned(level, sizeId);
  const lam = result.geometry.lam(level);
  const logits = swapAlign2natWindow(aligned, lam, [y, x], result.padValue);
  const side = result.geometry.sideBins(level, sizeId);
  return { aligned, lam, cell: [y, x], logits, side, padValue: result.padValue };
}

function titleOf({ label, score, window: { level, sizeId } }, state) {
  const geometry = geometryOf(state);
  const side = geometry.sideBins(level, sizeId);
  const coarse = geometry.sidesBins[sizeId];
  return (
    `${CLASS_NAMES[label]}, score ${score.toFixed(2)}. Level ${level}: a cell every ` +
    `${geometry.stridesPx[level]} px holds ${coarse} × ${coarse} values; its window, ` +
    `${geometry.sidePx(level, sizeId)} px wide, has λ = ${geometry.lam(level)} times as many ` +
    `bins along each side, ${side} × ${side}, each ${geometry.binPx(level)} px wide.`
  );
}
