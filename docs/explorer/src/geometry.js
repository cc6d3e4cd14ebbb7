// Levels, windows, bins: tensormask_edu/geometry.py for the model in the page.
//
// The windows of cell (y, x) on a level are centred at pixel (x * stride, y * stride). In the
// bipyramid every level's bins are as large as the finest level's.

export class Geometry {
  constructor({ strides_px: strides, sides_bins: sides, bipyramid = true }) {
    this.stridesPx = strides;
    this.sidesBins = sides;
    this.bipyramid = bipyramid;
  }

  get levels() {
    return this.stridesPx.length;
  }

  get sizes() {
    return this.sidesBins.length;
  }

  /** How many times as many bins per side a window has as on level 0. */
  lam(level) {
    return this.bipyramid ? this.stridesPx[level] / this.stridesPx[0] : 1;
  }

  binPx(level) {
    return this.bipyramid ? this.stridesPx[0] : this.stridesPx[level];
  }

  sidePx(level, sizeId) {
    return this.sidesBins[sizeId] * this.stridesPx[level];
  }

  sideBins(level, sizeId) {
    return this.sidesBins[sizeId] * this.lam(level);
  }

  /** The window of a cell as [x0, y0, x1, y1] in pixels; it may reach beyond the picture. */
  window({ level, sizeId, y, x }) {
    const half = this.sidePx(level, sizeId) / 2;
    const [cx, cy] = [x * this.stridesPx[level], y * this.stridesPx[level]];
    return [cx - half, cy - half, cx + half, cy + half];
  }

  /** Every window of a picture: {level, sizeId, y, x, box}. */
  *windows(heightPx, widthPx) {
    for (let level = 0; level < this.levels; level++) {
      const stride = this.stridesPx[level];
      for (let y = 0; y < Math.ceil(heightPx / stride); y++) {
        for (let x = 0; x < Math.ceil(widthPx / stride); x++) {
          for (let sizeId = 0; sizeId < this.sizes; sizeId++) {
            const place = { level, sizeId, y, x };
            yield { ...place, box: this.window(place) };
          }
        }
      }
    }
  }
}

/** The geometry of the model that comes along, until the file's own metadata is read. */
export const SHAPES = new Geometry({ strides_px: [4, 8, 16, 32], sides_bins: [5, 7] });
