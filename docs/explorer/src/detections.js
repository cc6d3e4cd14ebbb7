// From the file's outputs to detections in the picture's pixels: clip and paste, as
// exporters/tensormask_export/runtimes/detections.py does it in NumPy. Picture and model input
// have the same size here, so nothing is scaled.

import { SIDE_PX } from "./scene.js";

/** [{box, score, label, window: {level, sizeId, y, x}, canvas, columns, mask}], best first.
 *
 *  outputs: by the names of the exporter's contract, {dims, data}. */
export function detections(outputs, geometry, threshold = 0.5) {
  const count = Number(outputs.count.data[0]);
  const [, , P, Q] = outputs.masks.dims; // (1, D, P, Q)
  return Array.from({ length: count }, (_, d) => {
    const at = (name, width) =>
      Array.from(outputs[name].data.subarray(width * d, width * (d + 1)));
    const [level, sizeId, y, x] = at("windows", 4).map(Number);
    const window = { level, sizeId, y, x };
    const canvas = outputs.masks.data.slice(d * P * Q, (d + 1) * P * Q);
    return {
      box: at("boxes", 4).map((value) => Math.min(Math.max(value, 0), SIDE_PX)),
      score: outputs.scores.data[d],
      label: Number(outputs.labels.data[d]),
      window,
      canvas,
      columns: Q,
      mask: paste(canvas, Q, window, geometry, threshold),
    };
  }).filter(({ box: [x0, y0, x1, y1] }) => x1 > x0 && y1 > y0);
}

/** Where a canvas of probabilities reaches the threshold: 0 and 1 per pixel. */
export function paste(canvas, Q, window, geometry, threshold) {
  const stride = geometry.stridesPx[window.level];
  const rows = pixelTaps(window.y * stride, window, geometry);
  const columns = pixelTaps(window.x * stride, window, geometry);
  const mask = new Uint8Array(SIDE_PX * SIDE_PX);
  for (const { pixel: y, first: row, share: down } of rows) {
    for (const { pixel: x, first: column, share: right } of columns) {
      const bin = (i, j) => canvas[i * Q + j];
      const left = bin(row, column) * (1 - down) + bin(row + 1, column) * down;
      const next = bin(row, column + 1) * (1 - down) + bin(row + 1, column + 1) * down;
      mask[y * SIDE_PX + x] = left * (1 - right) + next * right >= threshold ? 1 : 0;
    }
  }
  return mask;
}

/** bin(v, u): how surely a bin of a detection's window is object, out of its canvas. */
export function binsOf({ canvas, columns, window: { level, sizeId, y, x } }, geometry) {
  const first = (cell) =>
    cell * geometry.lam(level) - Math.floor(geometry.sideBins(level, sizeId) / 2) + 1;
  const [top, left] = [first(y), first(x)];
  const rows = canvas.length / columns;
  const inside = (i, count) => i >= 0 && i < count;
  return (v, u) => {
    const [row, column] = [top + v, left + u];
    return inside(row, rows) && inside(column, columns) ? canvas[row * columns + column] : 0;
  };
}

/** Along one axis: the pixels inside a window, and between which bins each of them lies. */
function pixelTaps(centrePx, { level, sizeId }, geometry) {
  const half = geometry.sidePx(level, sizeId) / 2;
  // one bin of border comes first; a window of an even number of bins lies half a bin off
  const shift = geometry.sideBins(level, sizeId) % 2 ? 0 : 0.5;
  const taps = [];
  for (let pixel = 0; pixel < SIDE_PX; pixel++) {
    if (Math.abs(pixel + 0.5 - centrePx) > half) continue;
    const place = (pixel + 0.5) / geometry.binPx(level) + 1 - shift;
    taps.push({ pixel, first: Math.floor(place), share: place - Math.floor(place) });
  }
  return taps;
}

/** Logits to probabilities. */
export const sigmoid = (logit) => 1 / (1 + Math.exp(-logit));
