// One tensor, two ways to file it, as a shear: in one dimension, values (v, y) of V bins at H
// cells. Natural: column y is a window, its bins stacked. Aligned: column y is a pixel, filed
// under it is what every window says of it: y moves by alpha * v.

const SVG = "http://www.w3.org/2000/svg";
const GAP = 2;

/** Draws the tensor into an SVG element, `share` of the way from natural (0) to aligned (1).
 *
 *  values: V x H numbers in [0, 1]. pixel: all that speaks of this pixel is followed. */
export function drawShear(picture, { values, alpha = 1, share = 0, pixel = 6, px = 20 }) {
  const [V, H] = [values.length, values[0].length];
  const reach = Math.ceil((alpha * (V - 1)) / 2);
  const [width, height] = [(H + 2 * reach) * px, V * px];
  picture.setAttribute("viewBox", `0 0 ${width} ${height + 8}`);
  const squares = values.flatMap((row, i) =>
    row.map((value, y) => {
      const v = i - (V - 1) / 2; // counted from the window's centre
      const place = y + reach + share * alpha * v; // in cells
      const square = document.createElementNS(SVG, "rect");
      const followed = Math.abs(y + alpha * v - pixel) < 1e-9;
      const attributes = {
        x: place * px + GAP / 2,
        y: i * px + 4,
        width: px - GAP,
        height: px - GAP,
        rx: 2,
        class: followed ? "value followed" : "value",
        style: `--share: ${value.toFixed(3)}`,
      };
      for (const [name, each] of Object.entries(attributes)) square.setAttribute(name, each);
      return square;
    }),
  );
  picture.replaceChildren(...squares);
}

/** What the windows of H cells see of a row of pixels: values[v][y] = row[y + alpha * v]. */
export function naturalOf(row, V, alpha = 1) {
  return Array.from({ length: V }, (_, i) =>
    row.map((_, y) => row[Math.round(y + alpha * (i - (V - 1) / 2))] ?? 0),
  );
}

/** A row of pixels with one object: 0 outside, 1 inside, soft at its ends. */
export const ROW = [0, 0, 0, 0.3, 0.9, 1, 1, 1, 0.8, 0.25, 0, 0, 0];
