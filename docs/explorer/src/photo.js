// A picture file as 128 x 128 RGB bytes: its middle square, scaled.

import { SIDE_PX } from "./scene.js";

/** {rgb, size}; size in words, as "4000 x 6000". Raises an error for what is no picture. */
export async function photoPixels(file) {
  const bitmap = await createImageBitmap(file); // turned upright as its file says
  const { width, height } = bitmap;
  const side = Math.min(width, height);
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIDE_PX;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  const corner = [(width - side) / 2, (height - side) / 2];
  context.drawImage(bitmap, ...corner, side, side, 0, 0, SIDE_PX, SIDE_PX);
  bitmap.close();
  const { data } = context.getImageData(0, 0, SIDE_PX, SIDE_PX);
  const rgb = new Uint8ClampedArray(3 * SIDE_PX * SIDE_PX);
  for (let i = 0, j = 0; i < rgb.length; i += 3, j += 4) rgb.set(data.subarray(j, j + 3), i);
  return { rgb, size: `${width} x ${height}` };
}
