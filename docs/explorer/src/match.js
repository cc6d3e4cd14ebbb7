// One object is chosen at a time: a shape of the scene, and what the model found of it.

import { iou } from "./scene.js";

const SAME = 0.3; // IoU from which a mask is said to be of a shape
const SHOWN = 0.5; // score

/** The detections that are shown, best first. */
export const shownOf = ({ result, stored }) =>
  (result?.detections ?? stored ?? []).filter(({ score }) => score >= SHOWN);

/** The chosen detection; undefined where the chosen shape was not found. */
export const chosenOf = (state) => shownOf(state)[state.detection];

/** What the store holds once a shape is chosen. */
export function byShape(state, shape) {
  const { mask } = seen(state).find((truth) => truth.shape === shape) ?? {};
  const found = mask ? nearest(mask, shownOf(state)) : null;
  // Without a shape, as in a photo, the best detection is open
  return { shape, detection: found ?? (shape == null ? 0 : null) };
}

/** What the store holds once a detection is chosen. */
export function byDetection(state, detection) {
  const mask = shownOf(state)[detection]?.mask;
  const found = mask ? nearest(mask, seen(state)) : null;
  return { detection, shape: found == null ? null : seen(state)[found].shape };
}

/** The shapes of the picture that the detections are of: while the hand moves, an older one. */
const seen = (state) => (state.result ? state.resultOf : state).truths;

/** The number of the candidate whose mask is most alike; null if none is. */
function nearest(mask, candidates) {
  const shared = candidates.map((each) => iou(mask, each.mask));
  const best = shared.indexOf(Math.max(...shared));
  return shared[best] >= SAME ? best : null;
}
