// The shear on the home page of the site: it moves as the page is scrolled.

import { ROW, drawShear, naturalOf } from "./shear.js";

const ROOM_PX = 80; // to scroll, at least; on a screen that holds the whole page it plays once
const SECONDS = 3;
const TOP_PX = 40; // left above the picture when it has come to its end

const picture = document.querySelector(".shear-figure svg");
const values = naturalOf(ROW, 5);

function draw(share) {
  drawShear(picture, { values, share: Math.min(Math.max(share, 0), 1) });
}

/** Where the figure comes into sight, and where the motion ends, in pixels of scrolling. */
function range() {
  const { top, height } = picture.getBoundingClientRect();
  const place = top + scrollY;
  const last = document.documentElement.scrollHeight - innerHeight;
  return [Math.max(place + height - innerHeight, 0), Math.min(place - TOP_PX, last)];
}

function follow() {
  const [from, to] = range();
  draw((scrollY - from) / (to - from));
}

function play(begun = performance.now()) {
  const share = (performance.now() - begun) / 1000 / SECONDS;
  draw(share);
  if (share < 1) requestAnimationFrame(() => play(begun));
}

draw(0.5); // also where motion is not wanted: half way, both orders can be seen
if (!matchMedia("(prefers-reduced-motion: reduce)").matches) {
  const [from, to] = range();
  if (to - from < ROOM_PX) play();
  else {
    follow();
    addEventListener("scroll", () => requestAnimationFrame(follow), { passive: true });
  }
}
