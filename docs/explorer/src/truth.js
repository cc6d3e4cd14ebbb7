// An object's true mask, cut into a window's bins and pasted back: what a perfect model could
// say.

import { SIDE_PX } from "./scene.js";

const FINE = 4; // points per bin along each side, to find how full it is

/** How full each bin of a square window is with the mask, 0 to 1: (side, side) row by row.
 *  window: [x0, y0, x1, y1] in pixels. */
export function binned(mask, [x0, y0, x1], side) {
  const px = (x1 - x0) / side;
  const out = new Float64Array(side * side);
  for (let v = 0; v < side; v++) {
    for (let u = 0; u < side; u++) {
      let full = 0;
      for (let i = 0; i < FINE; i++) {
        for (let j = 0; j < FINE; j++) {
          full += pixelAt(
            mask,
            y0 + (v + (i + 0.5) / FINE) * px,
            x0 + (u + (j + 0.5) / FINE) * px,
          );
        }
      }
      out[v * side + u] = full / FINE ** 2;
    }
  }
  return out;
}

function pixelAt(mask, y, x) {
  const [row, column] = [Math.floor(y), Math.floor(x)];
  const inside = row >= 0 && row < SIDE_PX && column >= 0 && column < SIDE_PX;
  return inside ? mask[row * SIDE_PX + column] : 0;
}

/** Bins of a window as a mask of pixels: bilinear between centres, 0 outside, cut at 1/2. */
export function pasted(bins, side, [x0, y0, x1, y1]) {
  const px = (x1 - x0) / side;
  const at = (v, u) => (v >= 0 && v < side && u >= 0 && u < side ? bins[v * side + u] : 0);
  const out = new Uint8Array(SIDE_PX * SIDE_PX);
  const rows = [Math.max(Math.floor(y0), 0), Math.min(Math.ceil(y1), SIDE_PX)];
  const columns = [Math.max(Math.floor(x0), 0), Math.min(Math.ceil(x1), SIDE_PX)];
  for (let y = rows[0]; y < rows[1]; y++) {
    for (let x = columns[0]; x < columns[1]; x++) {
      const [v, u] = [(y + 0.5 - y0) / px - 0.5, (x + 0.5 - x0) / px - 0.5];
      const [v0, u0] = [Math.floor(v), Math.floor(u)];
      const [down, right] = [v - v0, u - u0];
      const above = at(v0, u0) * (1 - right) + at(v0, u0 + 1) * right;
      const below = at(v0 + 1, u0) * (1 - right) + at(v0 + 1, u0 + 1) * right;
      out[y * SIDE_PX + x] = above * (1 - down) + below * down >= 0.5 ? 1 : 0;
    }
  }
  return out;
}

/** The truth of the chosen shape; of the largest, if none is chosen. */
export function truthOf({ truths, shape }) {
  const found = truths.find((truth) => truth.shape === shape);
  return found ?? truths.reduce((best, t) => (best && best.area >= t.area ? best : t), null);
}
