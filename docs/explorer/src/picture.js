// The picture: 128 x 128 pixels to draw on, the masks that the model sees in them, and the
// layer into which the open view draws.

import { h, svg } from "./dom.js";
import { outlinePath } from "./look.js";
import {
  ASPECT,
  CLASS_NAMES,
  LONG_PX,
  SIDE_PX,
  differentColour,
  outline,
  randomScene,
} from "./scene.js";
import { EXAMPLES } from "./examples.js";
import { byDetection, byShape, shownOf } from "./match.js";
import { photoPixels } from "./photo.js";

const STEP_PX = 2; // of an arrow key
const TURN = Math.PI / 24;
const MOST_SHAPES = 40;
const KEYS =
  "N next shape, arrows move it, plus and minus resize, brackets turn, C colour, A add, " +
  "Delete remove, M next mask.";

export class Picture {
  /** actions: {change(scene), example(number)}. */
  constructor(root, store, actions) {
    Object.assign(this, { root, store, actions, drag: null, seed: 100 });
    this.canvas = h("canvas", { width: SIDE_PX, height: SIDE_PX, "aria-hidden": "true" });
    this.masks = svg("g", { class: "masks" });
    this.layer = svg("g", { class: "layer" });
    this.handles = svg("g", { class: "handles" });
    this.stage = svg(
      "svg",
      {
        viewBox: `0 0 ${SIDE_PX} ${SIDE_PX}`,
        tabindex: 0,
        role: "application",
        "aria-label": `Picture. ${KEYS}`,
        onpointerdown: (event) => this.down(event),
        onpointermove: (event) => this.move(event),
        onpointerup: () => (this.drag = null),
        onpointercancel: () => (this.drag = null),
        onkeydown: (event) => this.key(event),
      },
      this.masks,
      this.layer,
      this.handles,
    );
    // A finger on a shape moves it; beside all shapes it scrolls the page
    const hold = (event) => this.drag && event.preventDefault();
    this.stage.addEventListener("touchstart", hold, { passive: false });
    this.says = h("p", { class: "says", role: "status" });
    this.list = h("div", { class: "found", role: "group", "aria-label": "Detections" });
    root.append(
      this.examples(),
      h("div", { class: "stage" }, this.canvas, this.stage),
      this.tools(),
      h("p", { class: "keys", "aria-hidden": "true" }, `Keys: ${KEYS}`),
      this.says,
      this.list,
    );
    this.receiveFiles();
    store.listen((state) => this.render(state));
  }

  // --- controls ---

  examples() {
    const buttons = EXAMPLES.map(({ title }, i) =>
      h("button", { type: "button", onclick: () => this.actions.example(i) }, title),
    );
    const fresh = h(
      "button",
      {
        type: "button",
        onclick: () => this.show(randomScene(this.seed++)),
      },
      "Surprise me",
    );
    return h(
      "div",
      { class: "examples", role: "group", "aria-label": "Pictures" },
      buttons,
      fresh,
    );
  }

  tools() {
    const add = CLASS_NAMES.map((name, kind) =>
      h(
        "button",
        {
          type: "button",
          title: `Add ${withArticle(name)}`,
          "aria-label": `Add ${withArticle(name)}`,
          onclick: () => {
            this.add(kind);
            this.stage.focus({ preventScroll: true }); // where the keys move and remove it
          },
        },
        icon(kind),
      ),
    );
    this.colour = h("input", {
      type: "color",
      "aria-label": "Colour of the chosen shape",
      oninput: () => this.edit({ colour: rgbOf(this.colour.value) }),
    });
    const remove = h("button", { type: "button", onclick: () => this.remove() }, "Remove");
    const front = h("button", { type: "button", onclick: () => this.toFront() }, "To front");
    this.ofChosen = [this.colour, front, remove];
    this.file = h("input", {
      type: "file",
      accept: "image/*",
      hidden: true,
      onchange: () => this.photo(this.file.files[0]),
    });
    const open = h(
      "button",
      { type: "button", onclick: () => this.file.click() },
      "Your picture …",
    );
    return h("div", { class: "tools" }, add, this.colour, front, remove, open, this.file);
  }

  receiveFiles() {
    this.root.addEventListener("dragover", (event) => event.preventDefault());
    this.root.addEventListener("drop", (event) => {
      event.preventDefault();
      this.photo(event.dataTransfer.files[0]);
    });
  }

  async photo(file) {
    if (!file) return;
    try {
      const { rgb, size } = await photoPixels(file);
      this.show({ ...this.store.state.scene, shapes: [], photo: rgb });
      this.say(
        `Scaled from ${size} px to 128 px, the middle square of it. The model has seen ` +
          "nothing but drawn shapes: what it says of a photo is a guess.",
      );
    } catch {
      this.say(`${file.name} is no picture that this browser reads: try a PNG or a JPEG.`);
    }
    this.file.value = "";
  }

  /** Another picture: nothing in it is chosen. */
  show(scene) {
    this.store.set(byShape(this.store.state, null));
    this.actions.change(scene);
  }

  say(text) {
    this.says.textContent = text;
  }

  // --- changes of the scene ---

  get chosen() {
    const { scene, shape } = this.store.state;
    return shape == null ? null : scene.shapes[shape];
  }

  edit(changes, number = this.store.state.shape) {
    const { scene } = this.store.state;
    if (number == null || !scene.shapes[number]) return;
    const shapes = scene.shapes.map((shape, i) =>
      i === number ? limited({ ...shape, ...changes }) : shape,
    );
    this.actions.change({ ...scene, shapes });
  }

  add(kind) {
    const { scene } = this.store.state;
    if (scene.shapes.length >= MOST_SHAPES)
      return this.say(`${MOST_SHAPES} shapes are enough.`);
    const count = scene.shapes.length;
    const random = () => [0, 1, 2].map(() => Math.floor(256 * Math.random()));
    const used = [scene.ground.start, scene.ground.end, ...scene.shapes.map((s) => s.colour)];
    const colour = differentColour(used, random);
    // Each beside the one before, so that two taps do not give one shape
    const place = { cx: 40 + ((count * 23) % 56), cy: 44 + ((count * 37) % 48) };
    const shape = { kind, ...place, long: 40, aspect: 0.85, angle: 0, colour };
    this.store.set({ shape: count });
    this.actions.change({ ...scene, shapes: [...scene.shapes, shape] });
  }

  remove() {
    const { scene, shape } = this.store.state;
    if (shape == null) return this.say("Choose a shape first: tap it.");
    this.store.set(byShape(this.store.state, null));
    this.actions.change({ ...scene, shapes: scene.shapes.filter((_, i) => i !== shape) });
  }

  toFront() {
    const { scene, shape } = this.store.state;
    if (shape == null) return this.say("Choose a shape first: tap it.");
    const others = scene.shapes.filter((_, i) => i !== shape);
    this.store.set({ shape: others.length });
    this.actions.change({ ...scene, shapes: [...others, scene.shapes[shape]] });
  }

  // --- hand ---

  place(event) {
    const { left, top, width, height } = this.stage.getBoundingClientRect();
    return [
      ((event.clientX - left) / width) * SIDE_PX,
      ((event.clientY - top) / height) * SIDE_PX,
    ];
  }

  down(event) {
    this.stage.setPointerCapture(event.pointerId);
    const place = this.place(event);
    const role = event.target.dataset?.handle;
    if (role && this.chosen) this.drag = { role, start: place, shape: this.chosen };
    else this.choose(place);
  }

  choose([x, y]) {
    const { state } = this.store;
    const pixel = Math.floor(y) * SIDE_PX + Math.floor(x);
    const shape = state.numbers[pixel] - 1;
    this.tap?.([x, y]);
    if (shape >= 0) {
      this.store.set(byShape(state, shape));
      this.drag = { role: "move", start: [x, y], shape: state.scene.shapes[shape] };
    } else if (!this.tap) {
      this.store.set(this.beside(pixel)); // unless the view took the tap
    }
  }

  /** Beside all shapes a tap lets go; a mask that lies there opens, as in a photo all do. */
  beside(pixel) {
    const { state } = this.store;
    const under = shownOf(state)
      .map(({ mask }, i) => [mask, i])
      .filter(([mask]) => mask[pixel])
      .map(([mask, i]) => [mask.reduce((a, b) => a + b, 0), i]);
    under.sort((a, b) => a[0] - b[0]); // a large mask would hide a small one
    return under.length ? { shape: null, detection: under[0][1] } : byShape(state, null);
  }

  move(event) {
    if (!this.drag) return;
    const [x, y] = this.place(event);
    const { role, start, shape } = this.drag;
    if (role === "move") {
      this.edit({ cx: shape.cx + x - start[0], cy: shape.cy + y - start[1] });
    } else {
      const [dx, dy] = [x - shape.cx, y - shape.cy];
      const reach = 2 * Math.hypot(dx, dy);
      if (role === "long") this.edit({ long: reach, angle: Math.atan2(dy, dx) });
      if (role === "aspect") this.edit({ aspect: reach / shape.long });
    }
  }

  key(event) {
    const { state } = this.store;
    const { scene, shape, detection } = state;
    const chosen = this.chosen;
    const next = (number, count) => (count ? ((number ?? -1) + 1) % count : null);
    const changes = {
      ArrowLeft: () => ({ cx: chosen.cx - STEP_PX }),
      ArrowRight: () => ({ cx: chosen.cx + STEP_PX }),
      ArrowUp: () => ({ cy: chosen.cy - STEP_PX }),
      ArrowDown: () => ({ cy: chosen.cy + STEP_PX }),
      "+": () => ({ long: chosen.long * 1.1 }),
      "-": () => ({ long: chosen.long / 1.1 }),
      "[": () => ({ angle: chosen.angle - TURN }),
      "]": () => ({ angle: chosen.angle + TURN }),
    }[event.key];
    const others = {
      n: () => this.store.set(byShape(state, next(shape, scene.shapes.length))),
      m: () => this.store.set(byDetection(state, next(detection, this.shown.length))),
      a: () => this.add((chosen?.kind ?? 0) % 4),
      c: () => this.colour.click(),
      Delete: () => this.remove(),
      Backspace: () => this.remove(),
    }[event.key];
    if (!others && !(changes && chosen)) return;
    event.preventDefault();
    if (others) others();
    else this.edit(changes());
  }

  // --- drawing ---

  render(state) {
    if (state.rgb !== this.drawn) this.drawPixels((this.drawn = state.rgb));
    const found = state.result?.detections ?? state.stored ?? [];
    if (found !== this.found) {
      this.found = found;
      this.shown = shownOf(state);
    }
    const { shown } = this;
    this.masks.replaceChildren(...shown.map((d, i) => this.maskOf(d, i === state.detection)));
    const chosen = this.chosen;
    this.handles.replaceChildren(...(chosen ? handlesOf(chosen) : []));
    if (chosen) this.colour.value = hexOf(chosen.colour);
    for (const control of this.ofChosen) control.disabled = !chosen;
    this.drawList(shown, state.detection);
  }

  drawPixels(rgb) {
    const image = new ImageData(SIDE_PX, SIDE_PX);
    for (let i = 0, j = 0; i < rgb.length; i += 3, j += 4) {
      image.data.set([rgb[i], rgb[i + 1], rgb[i + 2], 255], j);
    }
    this.canvas.getContext("2d").putImageData(image, 0, 0);
  }

  maskOf(detection, isChosen) {
    detection.path ??= outlinePath(detection.mask, SIDE_PX);
    return svg("path", { d: detection.path, class: isChosen ? "mask chosen" : "mask" });
  }

  drawList(shown, chosen) {
    const words = shown.map(({ label, score }) => `${CLASS_NAMES[label]} ${score.toFixed(2)}`);
    const key = `${words}|${chosen}`;
    if (key === this.listed) return;
    this.listed = key;
    const buttons = words.map((text, i) =>
      h(
        "button",
        {
          type: "button",
          "aria-pressed": String(i === chosen),
          onclick: () => this.store.set(byDetection(this.store.state, i)),
        },
        text,
      ),
    );
    this.list.replaceChildren(...(buttons.length ? buttons : ["nothing found"]));
  }
}

function icon(kind) {
  const shape = { kind, cx: 10, cy: 10, long: 16, aspect: kind < 2 ? 0.7 : 0.9, angle: 0 };
  const points = outline(shape)
    .map((point) => point.map((v) => v.toFixed(1)).join())
    .join(" ");
  return svg(
    "svg",
    { class: "icon", viewBox: "0 0 20 20", "aria-hidden": "true" },
    svg("polygon", { points }),
  );
}

const withArticle = (name) => `${/^[aeiou]/.test(name) ? "an" : "a"} ${name}`;

/** A shape that can be seen and held: centre inside the picture, sides of a few pixels. */
function limited(shape) {
  const within = (value, low, high) => Math.min(Math.max(value, low), high);
  return {
    ...shape,
    cx: within(shape.cx, 0, SIDE_PX),
    cy: within(shape.cy, 0, SIDE_PX),
    long: within(shape.long, LONG_PX[0] / 2, 1.5 * LONG_PX[1]),
    aspect: within(shape.aspect, ASPECT[0] / 2, 1 / ASPECT[0]),
  };
}

function handlesOf(shape) {
  const { cx, cy, long, aspect, angle } = shape;
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  const [ax, ay] = [cx + (cos * long) / 2, cy + (sin * long) / 2];
  const [bx, by] = [cx - (sin * long * aspect) / 2, cy + (cos * long * aspect) / 2];
  const dot = (handle, words, x, y) => [
    svg("circle", { cx: x, cy: y, r: 1.8, class: "knob" }),
    svg(
      "circle",
      { cx: x, cy: y, r: 5, class: "grip", "data-handle": handle },
      svg("title", {}, words),
    ),
  ];
  const points = outline(shape)
    .map((point) => point.map((v) => v.toFixed(1)).join())
    .join(" ");
  return [
    svg("polygon", { points, class: "outline" }),
    ...dot("long", "Turn and resize", ax, ay),
    ...dot("aspect", "Flatten", bx, by),
  ];
}

const hexOf = (rgb) =>
  `#${rgb.map((v) => Math.round(v).toString(16).padStart(2, "0")).join("")}`;
const rgbOf = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
