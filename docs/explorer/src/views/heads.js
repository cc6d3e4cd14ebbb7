// Three heads, each trained by itself for what it does: their stored outputs for ten objects
// (heads.py makes them). Training is the one thing that a page cannot redo while one watches.

import { choice, h, paint } from "../dom.js";
import { sigmoid } from "../detections.js";
import { outlinePath, pens, shade } from "../look.js";
import { float16, unpackedBits } from "../packed.js";
import OBJECTS from "../heads.json";

const WIDTH = 200;
const HEADS = [
  ["natural-5", "natural, bilinear"],
  ["nearest-5", "aligned, nearest"],
  ["aligned-5", "aligned, bilinear"],
];

export class TrainedHeads {
  constructor(root) {
    this.chosen = 0;
    const numbers = OBJECTS.map((_, i) => [i, String(i + 1)]);
    this.choice = choice("object", numbers, (value) => {
      this.chosen = value;
      this.render();
    });
    this.picture = h("canvas", { role: "img", "aria-label": "The picture and the window" });
    this.panels = HEADS.map(([name, caption]) => {
      const canvas = h("canvas", { role: "img", "aria-label": `What ${caption} says` });
      return { name, canvas, number: h("b", {}), caption };
    });
    const means = HEADS.map(([name, caption]) => `${caption} ${mean(name).toFixed(3)}`);
    root.append(
      h("h3", {}, "Trained for it: 3 × 3 values, 15 × 15 bins"),
      h(
        "p",
        {},
        "Three models learnt for 1,200 steps on small pictures, each with its own way from ",
        "nine values to 225 bins. What they say of objects that none of them was trained on:",
      ),
      this.choice.element,
      h(
        "div",
        { class: "four" },
        h("figure", {}, this.picture, h("figcaption", {}, "the picture, the window")),
        ...this.panels.map(({ canvas, caption, number }) =>
          h("figure", {}, canvas, h("figcaption", {}, `${caption} `, number)),
        ),
      ),
      h("p", { class: "fact" }, `IoU, mean of the ten: ${means.join(", ")}.`),
    );
  }

  /** Draws the chosen object, in the colours of now. */
  render() {
    this.choice.show(this.chosen);
    const object = OBJECTS[this.chosen];
    const colours = pens();
    for (const { name, canvas, number } of this.panels) {
      const { bins, iou } = object.heads[name];
      paint(canvas, WIDTH, WIDTH, (context) =>
        drawBins(context, float16(bins), object, colours),
      );
      number.textContent = `IoU ${iou.toFixed(3)}`;
    }
    this.drawPicture(object, colours);
  }

  async drawPicture({ picture, size, window: [x0, y0, x1, y1] }, colours) {
    const image = new Image();
    image.src = `data:image/jpeg;base64,${picture}`;
    await image.decode();
    if (OBJECTS[this.chosen].picture !== picture) return; // another one was chosen meanwhile
    const scale = WIDTH / size;
    paint(this.picture, WIDTH, WIDTH, (context) => {
      context.drawImage(image, 0, 0, WIDTH, WIDTH);
      Object.assign(context, { strokeStyle: colours.positive, lineWidth: 3 });
      context.setLineDash([6, 4]);
      context.strokeRect(x0 * scale, y0 * scale, (x1 - x0) * scale, (y1 - y0) * scale);
    });
  }
}

/** The bins of a window in grey, the outline of the truth over them. */
function drawBins(context, logits, { truth, size, window }, colours) {
  const side = Math.sqrt(logits.length);
  const px = WIDTH / side;
  logits.forEach((logit, i) => {
    context.fillStyle = shade(sigmoid(logit), colours);
    context.fillRect((i % side) * px, Math.floor(i / side) * px, px - 0.25, px - 0.25);
  });
  const scale = WIDTH / (window[2] - window[0]);
  context.translate(-window[0] * scale, -window[1] * scale);
  Object.assign(context, { strokeStyle: colours.truth, lineWidth: 1.5 });
  context.stroke(new Path2D(outlinePath(unpackedBits(truth), size, scale)));
}

const mean = (name) =>
  OBJECTS.reduce((sum, { heads }) => sum + heads[name].iou, 0) / OBJECTS.length;
