// Which windows should learn which object: tensormask_edu/reference/assign.py.

/** The three rules for one window and one object (paper, section 4), each true or false.
 *
 *  window, box: [x0, y0, x1, y1] in pixels. unit: how far apart their centres may be. slack:
 *  what the window may be longer than twice the object. smallest: an object counts as at least
 *  half this long. */
export function rules(window, unit, slack, box, smallest) {
  const contained =
    window[0] <= box[0] && window[1] <= box[1] && window[2] >= box[2] && window[3] >= box[3];
  const side = window[2] - window[0]; // windows are squares
  const longest = Math.max(box[2] - box[0], box[3] - box[1]);
  const fits = side - slack <= Math.max(2 * longest, smallest);
  const dx = (box[0] + box[2]) / 2 - (window[0] + window[2]) / 2;
  const dy = (box[1] + box[3]) / 2 - (window[1] + window[3]) / 2;
  const central = Math.sqrt(dx * dx + dy * dy) <= unit; // the border counts as inside
  return { contained, fits, central, positive: contained && fits && central };
}

/** The object each window is positive for; -1 for none or for more than one. */
export function assign(windows, units, slacks, boxes, smallest) {
  return windows.map((window, m) => {
    const claims = boxes.flatMap((box, g) =>
      rules(window, units[m], slacks[m], box, smallest).positive ? [g] : [],
    );
    return claims.length === 1 ? claims[0] : -1; // claimed twice, it could learn neither
  });
}
