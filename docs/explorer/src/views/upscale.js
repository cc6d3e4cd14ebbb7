// More pixels for free: few bins per window, many in the mask. Natural bins can only be
// blurred; aligned ones are read at neighbouring cells, and those know the pixels between.

import { Controls, choice, h, paint, slider, svg } from "../dom.js";
import { outlinePath, pens, shade } from "../look.js";
import {
  contributions,
  nearestTap,
  swapAlign2natWindow,
  taps,
  tensor,
  upBilinear,
  upNearest,
} from "../operators.js";
import { sigmoid } from "../detections.js";
import { chosenOf } from "../match.js";
import { SIDE_PX, iou } from "../scene.js";
import { binned, pasted, truthOf } from "../truth.js";
import { TrainedHeads } from "./heads.js";
import { missingValues, notFound, opened } from "./window.js";

const WIDTH = 200;
const READS = { bilinear: taps, nearest: nearestTap };
const AROUND = 1.25; // the window's side, in lengths of the object

export class UpscaleView {
  constructor(root, store) {
    this.store = store;
    const panel = (caption) => {
      const canvas = h("canvas", { role: "img", "aria-label": caption });
      const number = h("b", {});
      return {
        canvas,
        number,
        figure: h("figure", {}, canvas, h("figcaption", {}, `${caption} `, number)),
      };
    };
    this.coarse = panel("The values of one window");
    this.natural = panel("Natural, enlarged");
    this.aligned = panel("Aligned, read at its cells");
    this.bilinear = panel("bilinear");
    this.nearest = panel("nearest");
    this.note = h("p", {});
    const update = (changes) => store.settings(changes);
    const side = slider("V", { min: 3, max: 15, shown: (v) => `${v} × ${v}` }, (v) =>
      update({ side: v }),
    );
    const lam = choice(
      "λ",
      [
        [1, "1"],
        [2, "2"],
        [4, "4"],
      ],
      (value) => update({ lam: value }),
    );
    const reads = [
      ["bilinear", "bilinear"],
      ["nearest", "nearest"],
    ];
    const up = choice("between values", reads, (value) => update({ up: value }));
    this.controls = new Controls({ side, lam, up });
    this.total = h("p", { class: "fact" });
    root.append(
      h(
        "section",
        { class: "lam-part" },
        h(
          "p",
          {},
          "A perfect model with V × V values per window, and a mask λ times as fine. The number ",
          "below each is the IoU with the true outline, the ",
          h("span", { class: "word truth" }, "blue line"),
          ": the shared area over the joint one, 1 at best.",
        ),
        side.element,
        lam.element,
        up.element,
        h(
          "div",
          { class: "triple" },
          this.coarse.figure,
          this.natural.figure,
          this.aligned.figure,
        ),
        this.total,
      ),
      h("h3", {}, "The real model, the same values read twice"),
      h("div", { class: "pair" }, this.bilinear.figure, this.nearest.figure),
      this.note,
    );
    this.heads = new TrainedHeads(root);
  }

  render(state) {
    const truth = truthOf(state);
    this.truth = truth;
    this.controls.show(state.settings);
    if (truth) this.ideal(truth, state.settings);
    this.real(state);
    this.heads.render();
  }

  /** The window around the chosen shape. */
  layer() {
    if (!this.window || !this.truth) return [];
    const [x0, y0, x1, y1] = this.window;
    return [svg("rect", { x: x0, y: y0, width: x1 - x0, height: y1 - y0, class: "window" })];
  }

  ideal({ mask, box }, { side, lam, up }) {
    const half = (AROUND / 2) * Math.max(box[2] - box[0], box[3] - box[1]);
    const [cx, cy] = [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2];
    const window = (this.window = [cx - half, cy - half, cx + half, cy + half]);
    const coarse = binned(mask, window, side);
    const enlarge =
      up === "bilinear"
        ? (x) => upBilinear(x, lam, { edge: "clamp" })
        : (x) => upNearest(x, lam);
    const natural = enlarge(tensor([side, side, 1, 1], coarse)).data;
    this.draw(this.coarse, coarse, side, window);
    this.draw(this.natural, natural, lam * side, window, mask);
    this.draw(
      this.aligned,
      readAligned(mask, window, side, lam, READS[up]),
      lam * side,
      window,
      mask,
    );
    this.total.textContent =
      `Both have ${side} × ${side} values per cell, and masks of ${lam * side} × ` +
      `${lam * side} bins. ` +
      "The natural mask knows one window alone; the aligned one asks the cells between.";
  }

  /** Draws bins of a window, and the outline of the truth over them. */
  draw({ canvas, number }, bins, side, window, mask = null) {
    const colours = pens();
    const px = WIDTH / side;
    paint(canvas, WIDTH, WIDTH, (context) => {
      bins.forEach((value, i) => {
        context.fillStyle = shade(value, colours);
        const gap = side > 30 ? 0 : 0.5;
        context.fillRect((i % side) * px, Math.floor(i / side) * px, px - gap, px - gap);
      });
      if (!mask) return;
      const scale = WIDTH / (window[2] - window[0]);
      context.translate(-window[0] * scale, -window[1] * scale);
      Object.assign(context, { strokeStyle: colours.truth, lineWidth: 1.5 });
      context.stroke(new Path2D(outlinePath(mask, SIDE_PX, scale)));
    });
    if (mask) number.textContent = `IoU ${iou(pasted(bins, side, window), mask).toFixed(3)}`;
  }

  real(state) {
    const detection = chosenOf(state);
    const missing = missingValues(state);
    if (!detection || missing) {
      this.note.textContent = missing ?? notFound(state);
      return;
    }
    const { aligned, lam, cell, logits, side, padValue } = opened(detection, state.result);
    const read = {
      bilinear: logits,
      nearest: swapAlign2natWindow(aligned, lam, cell, padValue, nearestTap),
    };
    const window = state.result.geometry.window(detection.window);
    for (const [name, values] of Object.entries(read))
      this.draw(this[name], values.map(sigmoid), side, window, this.truth?.mask);
    this.note.textContent =
      (lam === 1
        ? "This mask lives on level 0, λ = 1, and nothing is enlarged: choose a larger one. "
        : `λ = ${lam} on this mask's level. `) +
      "The model was trained with bilinear reading; nearest is only put in its place here.";
  }
}

/** A perfect aligned tensor, read at one window: all windows say of a cell what lies there. */
function readAligned(mask, window, side, lam, read) {
  const fine = lam * side;
  const px = (window[2] - window[0]) / fine; // from cell to cell, and from fine bin to fine bin
  // Bins of an even number lie between the cells: half a cell more on each side
  const half = fine % 2 ? 0 : 0.5;
  const [x0, y0, x1, y1] = window;
  const [margin, across] = [half * px, fine + 2 * half];
  const cells = binned(mask, [x0 - margin, y0 - margin, x1 + margin, y1 + margin], across);
  const shape = [side, side, 4 * fine, 4 * fine]; // a grid with room around the window
  const centre = [side, side]; // a coarse cell in its middle
  const out = new Float64Array(fine * fine);
  const first = lam * side - (fine - 1) / 2 - half; // the first cell that the window reads
  for (let v = 0; v < fine; v++) {
    for (let u = 0; u < fine; u++) {
      let total = 0; // what lies outside counts as 0, surely not
      for (const { entry, weight } of contributions(shape, lam, centre, v, u, read)) {
        // Every window (v, u) says the same of a cell: what lies there
        total += weight * cells[(entry[2] - first) * across + entry[3] - first];
      }
      out[v * fine + u] = total;
    }
  }
  return out;
}
