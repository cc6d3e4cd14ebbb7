// The overlap world (tensormask_edu/data/shapes.py), to be drawn by hand: a scene is a few
// shapes on a ground, under noise. Later shapes hide earlier ones.
//
// scene: {ground: {start, end, angle}, shapes: [{kind, cx, cy, long, aspect, angle, colour}],
//         seed, photo?}; pixels from 0 to 128, angles in radians, colours 0..255 RGB. `photo`,
//         128 x 128 RGB bytes, takes the place of ground and noise.

export const SIDE_PX = 128;
export const CLASS_NAMES = ["ellipse", "rectangle", "triangle", "star"];
export const LONG_PX = [10, 110]; // what the model has seen, longest side
export const ASPECT = [0.55, 1];
const NOISE = 10; // standard deviation, of 0..255

// --- shapes ----------------------------------------------------------------------------------

const around = (angles) => angles.map((a) => [Math.sin(a), -Math.cos(a)]);
const turns = (count) => Array.from({ length: count }, (_, i) => (2 * Math.PI * i) / count);

function stretched(points) {
  const axis = (k) => points.map((point) => point[k]);
  const [low, high] = [0, 1].map((k) => [Math.min(...axis(k)), Math.max(...axis(k))]);
  const spread = (value, [from, to]) => (2 * value - from - to) / (to - from);
  return points.map(([x, y]) => [spread(x, low), spread(y, high)]);
}

const star = around(turns(10)).map(([x, y], i) => (i % 2 ? [0.45 * x, 0.45 * y] : [x, y]));
// Per class, corners in the square from -1 to 1; five tips do not fill it: stretched
const UNIT_OUTLINES = [
  around(turns(48)),
  [
    [-1, -1],
    [1, -1],
    [1, 1],
    [-1, 1],
  ],
  [
    [0, -1],
    [1, 1],
    [-1, 1],
  ],
  stretched(star),
];

/** The corners [x, y] of a shape in pixels. */
export function outline({ kind, cx, cy, long, aspect, angle }) {
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  return UNIT_OUTLINES[kind].map(([x, y]) => {
    const [px, py] = [(x * long) / 2, (y * long * aspect) / 2];
    return [cx + px * cos - py * sin, cy + px * sin + py * cos];
  });
}

/** Calls paint(y, x0, x1) for the pixels x0 <= x < x1 of each row whose centres lie inside. */
function fill(points, paint) {
  for (let row = 0; row < SIDE_PX; row++) {
    const y = row + 0.5;
    const crossings = [];
    points.forEach(([x0, y0], i) => {
      const [x1, y1] = points[(i + 1) % points.length];
      if (y0 <= y !== y1 <= y) crossings.push(x0 + ((y - y0) / (y1 - y0)) * (x1 - x0));
    });
    crossings.sort((a, b) => a - b);
    for (let k = 0; k + 1 < crossings.length; k += 2) {
      const [from, to] = [crossings[k], crossings[k + 1]].map((x) => Math.ceil(x - 0.5));
      paint(row, Math.max(from, 0), Math.min(to, SIDE_PX));
    }
  }
}

/** The whole shape as 0 and 1 per pixel, hidden parts included. */
export function shapeMask(shape) {
  const mask = new Uint8Array(SIDE_PX * SIDE_PX);
  fill(outline(shape), (row, from, to) =>
    mask.fill(1, row * SIDE_PX + from, row * SIDE_PX + to),
  );
  return mask;
}

// --- the picture -----------------------------------------------------------------------------

/** The scene as RGB bytes, row by row, and per pixel the number of its shape, 0 for none. */
export function render(scene) {
  const numbers = new Uint8Array(SIDE_PX * SIDE_PX);
  scene.shapes.forEach((shape, i) => {
    const paint = (row, from, to) =>
      numbers.fill(i + 1, row * SIDE_PX + from, row * SIDE_PX + to);
    fill(outline(shape), paint);
  });
  const rgb = new Uint8ClampedArray(3 * numbers.length);
  const ground = scene.photo ? null : gradient(scene.ground);
  const noise = scene.photo ? null : normals(scene.seed);
  numbers.forEach((number, pixel) => {
    for (let channel = 0; channel < 3; channel++) {
      const i = 3 * pixel + channel;
      const plain = number
        ? scene.shapes[number - 1].colour[channel]
        : (scene.photo ?? ground)[i];
      // Cut to whole values as the training pictures are
      rgb[i] = Math.floor(noise ? Math.max(plain + NOISE * noise[i], 0) : plain);
    }
  });
  return { rgb, numbers };
}

function gradient({ start, end, angle }) {
  const ground = new Float32Array(3 * SIDE_PX * SIDE_PX);
  for (let y = 0; y < SIDE_PX; y++) {
    for (let x = 0; x < SIDE_PX; x++) {
      const [px, py] = [x / SIDE_PX - 0.5, y / SIDE_PX - 0.5];
      const share = 0.5 + 0.7 * (Math.cos(angle) * px + Math.sin(angle) * py);
      for (let k = 0; k < 3; k++) {
        ground[3 * (y * SIDE_PX + x) + k] = start[k] + (end[k] - start[k]) * share;
      }
    }
  }
  return ground;
}

/** Random numbers in [0, 1) that a seed repeats on every machine (mulberry32). */
export function randomFrom(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const kept = { seed: null, values: null }; // the noise of the scene on screen

/** A normal number per value of a picture. */
function normals(seed) {
  if (kept.seed === seed) return kept.values;
  const random = randomFrom(seed);
  const values = new Float32Array(3 * SIDE_PX * SIDE_PX);
  for (let i = 0; i < values.length; i += 2) {
    const radius = Math.sqrt(-2 * Math.log(1 - random()));
    const turn = 2 * Math.PI * random();
    values[i] = radius * Math.cos(turn);
    values[i + 1] = radius * Math.sin(turn);
  }
  return Object.assign(kept, { seed, values }).values;
}

/** A scene at random, as the model's training pictures are. */
export function randomScene(seed) {
  const random = randomFrom(seed);
  const within = (low, high) => low + (high - low) * random();
  const colour = () => [0, 1, 2].map(() => Math.round(within(0, 255)));
  const used = [colour(), colour()];
  const ground = { start: used[0], end: used[1], angle: within(0, 2 * Math.PI) };
  const shapes = Array.from({ length: 2 + Math.floor(5 * random()) }, () => {
    used.push(differentColour(used, colour));
    return {
      kind: Math.floor(4 * random()),
      cx: within(0.1, 0.9) * SIDE_PX,
      cy: within(0.1, 0.9) * SIDE_PX,
      long: Math.exp(within(Math.log(LONG_PX[0]), Math.log(LONG_PX[1]))),
      aspect: within(...ASPECT),
      angle: within(0, 2 * Math.PI),
      colour: used.at(-1),
    };
  });
  return { ground, shapes, seed };
}

/** A colour far from all that are used; the last of 50 tries, if none is. */
export function differentColour(used, colour) {
  const apart = (a, b) => Math.hypot(...a.map((value, k) => value - b[k]));
  let tried = colour();
  for (let i = 0; i < 50 && used.some((other) => apart(other, tried) < 70); i++)
    tried = colour();
  return tried;
}

// --- what the model and the rules need -------------------------------------------------------

/** The model's input: float32 (1, 3, 128, 128) in [0, 1] of RGB bytes. */
export function modelInput(rgb) {
  const plane = SIDE_PX * SIDE_PX;
  const input = new Float32Array(3 * plane);
  for (let pixel = 0; pixel < plane; pixel++) {
    for (let k = 0; k < 3; k++) input[k * plane + pixel] = rgb[3 * pixel + k] / 255;
  }
  return input;
}

/** The visible part of each shape: {shape, mask, area, box}, those with a pixel to see. */
export function truths(numbers, shapes) {
  return shapes.flatMap((shape, i) => {
    const mask = numbers.map((number) => Number(number === i + 1));
    const box = tightBox(mask);
    return box ? [{ shape: i, mask, box, area: mask.reduce((a, b) => a + b, 0) }] : [];
  });
}

/** [x0, y0, x1, y1] around the pixels of a mask; null if there are none. */
export function tightBox(mask) {
  let [x0, y0, x1, y1] = [SIDE_PX, SIDE_PX, 0, 0];
  mask.forEach((value, pixel) => {
    if (!value) return;
    const [x, y] = [pixel % SIDE_PX, Math.floor(pixel / SIDE_PX)];
    [x0, y0, x1, y1] = [
      Math.min(x0, x),
      Math.min(y0, y),
      Math.max(x1, x + 1),
      Math.max(y1, y + 1),
    ];
  });
  return x1 > x0 ? [x0, y0, x1, y1] : null;
}

/** Shared pixels over all pixels of two masks. */
export function iou(a, b) {
  let [shared, either] = [0, 0];
  for (let i = 0; i < a.length; i++) {
    shared += a[i] && b[i] ? 1 : 0;
    either += a[i] || b[i] ? 1 : 0;
  }
  return either ? shared / either : 0;
}
