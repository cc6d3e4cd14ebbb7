// The operators of the paper, forward, as tensormask_edu/reference has them: the same loops.
//
// A tensor is {shape: [V, U, H, W], data}: at every cell (y, x) of an H x W grid a V x U
// sub-tensor, the last axis fastest. (The reference has N pictures in front; the page has one.)
// What lies outside, in any axis, is `padValue`. Everything is computed in float64.

export const PAD_VALUE = -6;

export function tensor(shape, data) {
  const size = shape.reduce((product, extent) => product * extent, 1);
  return { shape, data: data ?? new Float64Array(size) };
}

/** The value of entry (v, u, y, x); `padValue` outside. */
export function valueAt({ shape: [V, U, H, W], data }, [v, u, y, x], padValue = PAD_VALUE) {
  const inside = v >= 0 && v < V && u >= 0 && u < U && y >= 0 && y < H && x >= 0 && x < W;
  return inside ? data[((v * U + u) * H + y) * W + x] : padValue;
}

// --- between the representations -------------------------------------------------------------

/** Aligned to natural (section 3; unequal units: appendix A.1): F(v, u, y, x) is read at
 *  v^ = sigmaVu / alignedSigmaVu * v, y^ = (sigmaHw * y + sigmaVu * v) / alignedSigmaHw. */
export function align2nat(x, units = {}) {
  const { hw, vu, hatHw, hatVu, padValue } = unitsOf(units);
  const readAt = (v, y) => [(vu / hatVu) * v, (hw * y + vu * v) / hatHw];
  return resample(x, scaledSize(x, hatVu / vu, hatHw / hw), readAt, "pad", padValue);
}

/** Natural to aligned, the inverse map of coordinates: F^(v^, u^, y^, x^) is read at
 *  v = alignedSigmaVu / sigmaVu * v^,
 *  y = (alignedSigmaHw * y^ - alignedSigmaVu * v^) / sigmaHw. */
export function nat2align(x, units = {}) {
  const { hw, vu, hatHw, hatVu, padValue } = unitsOf(units);
  const readAt = (v, y) => [(hatVu / vu) * v, (hatHw * y - hatVu * v) / hw];
  return resample(x, scaledSize(x, vu / hatVu, hw / hatHw), readAt, "pad", padValue);
}

function unitsOf({ sigmaHw = 1, sigmaVu = 1, alignedSigmaHw, alignedSigmaVu, padValue }) {
  return {
    hw: sigmaHw,
    vu: sigmaVu,
    hatHw: alignedSigmaHw ?? sigmaHw,
    hatVu: alignedSigmaVu ?? sigmaVu,
    padValue: padValue ?? PAD_VALUE,
  };
}

// --- finer bins, fewer cells -----------------------------------------------------------------

/** Bilinear upscaling of every sub-tensor by lam, half-pixel centres (section 3). Beyond the
 *  sub-tensor's border lies `padValue` ("pad") or the border entry repeated ("clamp"). */
export function upBilinear(x, lam, { edge = "pad", padValue = PAD_VALUE } = {}) {
  const readAt = (v, y) => [v / lam, y]; // counted from the centre: a plain division
  return resample(x, upscaledSize(x, lam), readAt, edge, padValue);
}

/** Nearest-neighbour upscaling of every sub-tensor by lam, half-pixel centres (section 3). */
export function upNearest(x, lam) {
  const [V, U, H, W] = x.shape;
  const [fineV, fineU] = upscaledSize(x, lam);
  const out = tensor([fineV, fineU, H, W]);
  forEachEntry(out.shape, (v, u, row, column, i) => {
    // In integers (lam = fineV / V), so that no rounding moves a tie.
    const vIn = Math.floor(((2 * v + 1) * V) / (2 * fineV));
    const uIn = Math.floor(((2 * u + 1) * U) / (2 * fineU));
    out.data[i] = valueAt(x, [vIn, uIn, row, column]);
  });
  return out;
}

/** `align2nat` after `upBilinear`: coarse aligned bins to fine natural ones (section 3). */
export function upAlign2nat(x, lam, { edge = "pad", padValue = PAD_VALUE } = {}) {
  return align2nat(upBilinear(x, lam, { edge, padValue }), { padValue });
}

/** Keeps every lam-th cell in y and x, starting at 0 (section 3). */
export function subsample(x, lam) {
  const [V, U, H, W] = x.shape;
  const out = tensor([V, U, Math.ceil(H / lam), Math.ceil(W / lam)]);
  forEachEntry(out.shape, (v, u, row, column, i) => {
    out.data[i] = valueAt(x, [v, u, lam * row, lam * column]);
  });
  return out;
}

// --- the op of the tensor bipyramid (section 3) --------------------------------------------

/** subsample(lam) after align2nat after upBilinear(lam), in one step: aligned coarse bins to
 *  natural fine bins, (V, U, H, W) -> (lam*V, lam*U, ceil(H/lam), ceil(W/lam)). */
export function swapAlign2nat(x, lam, padValue = PAD_VALUE) {
  const [V, U, H, W] = x.shape;
  const out = tensor([lam * V, lam * U, Math.ceil(H / lam), Math.ceil(W / lam)]);
  forEachEntry(out.shape, (v, u, row, column, i) => {
    out.data[i] = summed(x, contributions(x.shape, lam, [row, column], v, u), padValue);
  });
  return out;
}

/** The same numbers for one window, the one of cell (y, x): (lam*V, lam*U), row by row.
 *  read: `taps`, or `nearestTap` for upNearest in the place of upBilinear. */
export function swapAlign2natWindow(x, lam, cell, padValue = PAD_VALUE, read = taps) {
  const [fineV, fineU] = [lam * x.shape[0], lam * x.shape[1]];
  const out = new Float64Array(fineV * fineU);
  for (let v = 0; v < fineV; v++) {
    for (let u = 0; u < fineU; u++) {
      out[v * fineU + u] = summed(x, contributions(x.shape, lam, cell, v, u, read), padValue);
    }
  }
  return out;
}

/** The input entries that sum to bin (v, u) of a cell: [{entry: [v, u, y, x], weight}], 16 at
 *  most. What is missing to a weight of 1 lies outside the tensor: the pad. */
export function contributions([V, U, H, W], lam, [y, x], v, u, read = taps) {
  const inside = (taps, extent) =>
    taps.filter(([tap, weight]) => weight > 0 && tap >= 0 && tap < extent);
  const vs = inside(read(v, lam), V);
  const us = inside(read(u, lam), U);
  const ys = inside(shiftedTaps(v, y, lam, V), H);
  const xs = inside(shiftedTaps(u, x, lam, U), W);
  const found = [];
  for (const [vIn, wv] of vs) {
    for (const [uIn, wu] of us) {
      for (const [yIn, wy] of ys) {
        for (const [xIn, wx] of xs) {
          found.push({ entry: [vIn, uIn, yIn, xIn], weight: wv * wu * wy * wx });
        }
      }
    }
  }
  return found;
}

/** The two sub-tensor entries around (v + 1/2)/lam - 1/2, with their weights. */
export function taps(v, lam) {
  const lower = Math.floor((2 * v + 1 - lam) / (2 * lam));
  const share = (2 * v + 1 - lam - 2 * lam * lower) / (2 * lam);
  return [
    [lower, 1 - share],
    [lower + 1, share],
  ];
}

/** The one sub-tensor entry under (v + 1/2)/lam - 1/2. */
export function nearestTap(v, lam) {
  return [[Math.floor((2 * v + 1) / (2 * lam)), 1]];
}

/** The cells around lam*y + v - (lam*V - 1)/2: one if lam*V is odd, else two, half each. */
export function shiftedTaps(v, y, lam, V) {
  const lower = Math.floor((1 - lam * V) / 2); // v counts from the window's centre
  const share = (1 - lam * V - 2 * lower) / 2;
  return [
    [lam * y + v + lower, 1 - share],
    [lam * y + v + lower + 1, share],
  ];
}

function summed(x, terms, padValue) {
  let total = 0;
  let outside = 1;
  for (const { entry, weight } of terms) {
    total += weight * valueAt(x, entry);
    outside -= weight;
  }
  return total + outside * padValue;
}

// --- what they share: reading between the entries --------------------------------------------

/** out[v, u, y, x] = x at (readAt(v, y), readAt(u, x)), v and u counted from the centre. */
export function resample(x, size, readAt, edge, padValue) {
  const [V, U] = x.shape;
  const clamped = (place, extent) => Math.min(Math.max(place, 0), extent - 1);
  const out = tensor(size);
  forEachEntry(size, (v, u, row, column, i) => {
    // An array counts from its first entry, the formulas from the centre: there and back.
    let [vIn, yIn] = readAt(v - (size[0] - 1) / 2, row);
    let [uIn, xIn] = readAt(u - (size[1] - 1) / 2, column);
    vIn += (V - 1) / 2;
    uIn += (U - 1) / 2;
    if (edge === "clamp") [vIn, uIn] = [clamped(vIn, V), clamped(uIn, U)];
    out.data[i] = interpolate(x, [vIn, uIn, yIn, xIn], padValue);
  });
  return out;
}

/** x at a point (v, u, y, x), 4-D linear: up to 16 entries. */
function interpolate(x, point, padValue) {
  const [vs, us, ys, xs] = point.map(neighbours);
  let total = 0;
  for (const [v, wv] of vs) {
    for (const [u, wu] of us) {
      for (const [y, wy] of ys) {
        for (const [column, wx] of xs) {
          total += wv * wu * wy * wx * valueAt(x, [v, u, y, column], padValue);
        }
      }
    }
  }
  return total;
}

/** The neighbours of a real index with their linear weights; one if it is an integer. */
function neighbours(coordinate) {
  const lower = Math.floor(coordinate);
  const share = coordinate - lower;
  return share
    ? [
        [lower, 1 - share],
        [lower + 1, share],
      ]
    : [[lower, 1]];
}

function forEachEntry([V, U, H, W], visit) {
  let i = 0;
  for (let v = 0; v < V; v++) {
    for (let u = 0; u < U; u++) {
      for (let y = 0; y < H; y++) {
        for (let x = 0; x < W; x++) visit(v, u, y, x, i++);
      }
    }
  }
}

/** Output extents: V and U times `vu`, H and W times `hw`. */
function scaledSize({ shape: [V, U, H, W] }, vu, hw) {
  // A ratio like 0.3 / 0.1 must not round up to one cell more.
  const cells = (extent) => Math.ceil(Math.round(extent * hw * 1e9) / 1e9);
  return [whole(V * vu), whole(U * vu), cells(H), cells(W)];
}

function upscaledSize({ shape: [V, U, H, W] }, lam) {
  return [whole(lam * V), whole(lam * U), H, W];
}

function whole(extent) {
  const side = Math.round(extent);
  if (side < 1 || Math.abs(extent - side) > 1e-9) {
    throw new Error(`expected a ratio that gives an integer sub-tensor side, got ${extent}`);
  }
  return side;
}
