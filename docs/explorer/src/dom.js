// Making elements, and the few controls that all views share.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children. on...: a listener; true, false: bare or absent. */
export function h(tag, attributes = {}, ...children) {
  return made(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return made(document.createElementNS(SVG, tag), attributes, children);
}

function made(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child != null));
  return element;
}

// A control is {element, show(value)}: the views show in it what the settings say, because the
// tour changes them too.

/** A labelled slider; `set(value)` is called as it moves. */
export function slider(label, { min, max, step = 1, shown = String }, set) {
  const output = h("output", {});
  const input = h("input", {
    type: "range",
    min,
    max,
    step,
    value: min,
    oninput: () => set(Number(input.value)),
  });
  const show = (value) => {
    input.value = value;
    output.textContent = shown(value);
  };
  return {
    element: h("label", { class: "slider" }, h("span", {}, label), input, output),
    show,
  };
}

/** Buttons of which one is pressed. choices: [[value, label]]. */
export function choice(label, choices, set) {
  const buttons = choices.map(([value, text]) =>
    h("button", { type: "button", onclick: () => set(value) }, text),
  );
  const show = (value) =>
    choices.forEach(([each], i) =>
      buttons[i].setAttribute("aria-pressed", String(each === value)),
    );
  const group = { class: "choice", role: "group", "aria-label": label };
  return { element: h("div", group, h("span", {}, label), buttons), show };
}

/** Controls of a view: `show(settings)` brings all of them up to date. */
export class Controls {
  constructor(controls) {
    this.controls = controls; // setting -> control
  }

  show(settings) {
    for (const [name, { show }] of Object.entries(this.controls)) show(settings[name]);
  }
}

export const LEVELS = [0, 1, 2, 3].map((level) => [level, String(level)]);
export const SIZES = [
  [0, "5 × 5"],
  [1, "7 × 7"],
];

/** A canvas that is as sharp as the screen; draw(context) in CSS pixels. */
export function paint(canvas, width, height, draw) {
  const ratio = Math.min(window.devicePixelRatio || 1, 2);
  const size = { width: Math.round(width * ratio), height: Math.round(height * ratio) };
  if (canvas.width !== size.width || canvas.height !== size.height) Object.assign(canvas, size);
  canvas.style.aspectRatio = `${width} / ${height}`;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  draw(context);
}

/** [rows, columns] that an arrow key moves by; null for other keys. */
export function arrowStep(event) {
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  return steps[event.key] ?? null;
}

export const still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
