// The bipyramid: bins of 4 px on every level, against a feature pyramid, whose bins grow.

import { Controls, LEVELS, SIZES, choice, h, paint, svg } from "../dom.js";
import { Geometry } from "../geometry.js";
import { pens, outlinePath, shade } from "../look.js";
import { SIDE_PX, iou } from "../scene.js";
import { binned, pasted, truthOf } from "../truth.js";
import { geometryOf } from "./window.js";

const WIDTH = 240;
const KINDS = [
  ["pyramid", "Feature pyramid"],
  ["bipyramid", "Tensor bipyramid"],
];

export class BipyramidView {
  constructor(root, store) {
    this.figures = Object.fromEntries(
      KINDS.map(([name, title]) => {
        const canvas = h("canvas", { role: "img", "aria-label": title });
        const caption = h("figcaption", {});
        return [name, { canvas, caption, title }];
      }),
    );
    const level = choice("level", LEVELS, (value) => store.settings({ level: value }));
    const sizeId = choice("window", SIZES, (value) => store.settings({ sizeId: value }));
    this.controls = new Controls({ level, sizeId });
    this.table = h("table", {});
    this.store = store;
    root.append(
      h(
        "p",
        {},
        "How well can the chosen shape be drawn at all? Its true mask, cut into the bins of ",
        "the nearest window and pasted back. One level up doubles the window: in a feature ",
        "pyramid its bins double with it, in the bipyramid they stay 4 px, and there are λ ",
        "times as many. IoU: the shared area over the joint one, 1 at best.",
      ),
      level.element,
      sizeId.element,
      h(
        "div",
        { class: "pair" },
        Object.values(this.figures).map(({ canvas, caption }) =>
          h("figure", {}, canvas, caption),
        ),
      ),
      h("div", { class: "wide" }, this.table),
    );
  }

  render(state) {
    const truth = (this.truth = truthOf(state));
    const { sizeId } = state.settings;
    const level = state.settings.level ?? 2; // where most shapes fit
    this.controls.show({ level, sizeId });
    if (!truth)
      return this.table.replaceChildren(h("caption", {}, "No shape is to be seen: add one."));
    const { stridesPx, sidesBins } = geometryOf(state);
    const config = { strides_px: stridesPx, sides_bins: sidesBins };
    this.geometries = Object.fromEntries(
      KINDS.map(([name]) => [
        name,
        new Geometry({ ...config, bipyramid: name === "bipyramid" }),
      ]),
    );
    this.found = {};
    for (const [name] of KINDS) this.draw(name, level, sizeId);
    this.writeTable(level, sizeId);
  }

  layer() {
    if (!this.truth || !this.found?.bipyramid) return [];
    const [x0, y0, x1, y1] = this.found.bipyramid.window;
    const outline = outlinePath(this.found.bipyramid.mask, SIDE_PX);
    return [
      svg("rect", { x: x0, y: y0, width: x1 - x0, height: y1 - y0, class: "window" }),
      svg("path", { d: outline, class: "reached" }),
    ];
  }

  /** The truth in the bins of the nearest window of a level. */
  reached(name, level, sizeId) {
    const geometry = this.geometries[name];
    const [x0, y0, x1, y1] = this.truth.box;
    const cell = (middle) => Math.round(middle / geometry.stridesPx[level]);
    const place = { level, sizeId, y: cell((y0 + y1) / 2), x: cell((x0 + x1) / 2) };
    const window = geometry.window(place);
    const side = geometry.sideBins(level, sizeId);
    const bins = binned(this.truth.mask, window, side).map((full) => (full >= 0.5 ? 1 : 0));
    const mask = pasted(bins, side, window);
    return { window, side, bins, mask, iou: iou(mask, this.truth.mask) };
  }

  draw(name, level, sizeId) {
    const { canvas, caption, title } = this.figures[name];
    const found = (this.found[name] = this.reached(name, level, sizeId));
    const colours = pens();
    const [x0, y0, x1] = found.window;
    const scale = WIDTH / (x1 - x0);
    const px = WIDTH / found.side;
    paint(canvas, WIDTH, WIDTH, (context) => {
      found.bins.forEach((value, i) => {
        context.fillStyle = shade(value, colours);
        const at = [(i % found.side) * px, Math.floor(i / found.side) * px];
        context.fillRect(...at, px - 0.5, px - 0.5);
      });
      for (const [mask, colour] of [
        [this.truth.mask, colours.truth],
        [found.mask, colours.prediction],
      ]) {
        context.save();
        context.translate(-x0 * scale, -y0 * scale);
        context.strokeStyle = colour;
        context.lineWidth = 2;
        context.stroke(new Path2D(outlinePath(mask, SIDE_PX, scale)));
        context.restore();
      }
    });
    const bin = this.geometries[name].binPx(level);
    caption.replaceChildren(
      h("b", {}, title),
      `: ${found.side} × ${found.side} bins of ${bin} px, IoU ${found.iou.toFixed(3)}. `,
      h("span", { class: "word truth" }, "truth"),
      ", ",
      h("span", { class: "word prediction" }, "reachable"),
    );
  }

  writeTable(level, sizeId) {
    const rows = [0, 1, 2, 3].map((k) => {
      const [pyramid, bipyramid] = KINDS.map(([name]) => this.reached(name, k, sizeId));
      const geometry = this.geometries.bipyramid;
      return h(
        "tr",
        { class: k === level ? "here" : null },
        h("td", {}, String(k)),
        h("td", {}, `${geometry.sidePx(k, sizeId)} px`),
        h("td", {}, `${pyramid.iou.toFixed(3)}`),
        h("td", {}, `${bipyramid.iou.toFixed(3)}`),
        h("td", {}, String(geometry.lam(k))),
      );
    });
    this.table.replaceChildren(
      h("caption", {}, "Reachable IoU of this shape, level by level"),
      h(
        "tr",
        {},
        ["level", "window", "pyramid", "bipyramid", "λ"].map((word) => h("th", {}, word)),
      ),
      ...rows,
    );
  }
}
