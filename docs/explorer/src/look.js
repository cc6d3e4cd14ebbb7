// The course's colours: one pen per meaning (tensormask_edu/viz/look.py), from the style sheet,
// so that light and dark differ there alone.

const names = [
  "truth",
  "prediction",
  "positive",
  "ignored",
  "followed",
  "paper",
  "ink",
  "text",
  "ground",
];

export function pens() {
  const style = getComputedStyle(document.documentElement);
  return Object.fromEntries(
    names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]),
  );
}

/** The shade of a mask value, 0 (paper) to 1 (ink). */
export function shade(value, { paper, ink }) {
  const part = (colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
  const share = Math.min(Math.max(value, 0), 1);
  const [low, high] = [part(paper), part(ink)];
  return `rgb(${low.map((from, k) => Math.round(from + share * (high[k] - from)))})`;
}

/** The outline of a mask of 0 and 1 as an SVG path along pixel edges. */
export function outlinePath(mask, side, scale = 1) {
  const at = (y, x) => (y >= 0 && y < side && x >= 0 && x < side ? mask[y * side + x] : 0);
  const parts = [];
  for (let y = 0; y <= side; y++) {
    for (let x = 0; x <= side; x++) {
      if (at(y, x) !== at(y - 1, x)) parts.push(`M${x * scale} ${y * scale}h${scale}`);
      if (at(y, x) !== at(y, x - 1)) parts.push(`M${x * scale} ${y * scale}v${scale}`);
    }
  }
  return parts.join("");
}
