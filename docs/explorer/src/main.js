// The page: the store, the model, the picture, the views, the tour.

import stored from "stored-results";
import { Store } from "./store.js";
import { Model } from "./model.js";
import { Picture } from "./picture.js";
import { Panel, placeOf } from "./panel.js";
import { Tour } from "./tour.js";
import { EXAMPLES } from "./examples.js";
import { SHAPES } from "./geometry.js";
import { paste } from "./detections.js";
import { byDetection, byShape } from "./match.js";
import { randomScene, render, truths } from "./scene.js";

const SETTINGS = {
  bin: null, // of the window: [v, u]; null: where the mask is least sure
  entry: null,
  share: 0,
  alpha: 1, // of the walls
  side: 5,
  lam: 4,
  up: "bilinear", // of the pixels for free
  level: null, // null: where the object is learnt
  sizeId: 0,
  cell: null, // {level, place: [y, x]}; of the bipyramid and the assignment
};

// `make demo` puts the model that it trained in the place of the one the results are stored of.
const OWN_MODEL = Boolean(document.querySelector("#model\\.onnx[data-own]"));

const status = document.getElementById("status");
const store = new Store({ shape: null, detection: 0, view: "window", settings: SETTINGS });
// A result may be late by a picture, while the hand moves: better than none.
const model = new Model(tell, (result, resultOf) => {
  store.set({ result, resultOf, stored: null });
  store.set(byShape(store.state, store.state.shape)); // scores, and so the order, change
});

/** Shows a scene; its result follows. */
function change(scene, known = null) {
  const { rgb, numbers } = render(scene);
  const picture = { scene, rgb, numbers, truths: truths(numbers, scene.shapes) };
  store.set({ ...picture, ...(known ? { stored: known, result: null } : {}) });
  model.see(picture);
}

function example(number) {
  store.settings({ bin: null });
  change(EXAMPLES[number].scene, OWN_MODEL ? [] : unpacked(stored[number]));
  store.set(byDetection(store.state, 0));
}

/** Stored detections with their masks drawn. */
function unpacked(found) {
  return found.map((detection) => {
    const canvas = Float32Array.from(atob(detection.canvas), (c) => c.charCodeAt(0) / 255);
    const mask = paste(canvas, detection.columns, detection.window, SHAPES, 0.5);
    return { ...detection, canvas, mask };
  });
}

function tell({ state, share, seconds, text }) {
  status.dataset.state = state;
  status.textContent = {
    loading: () => `stored result; the model is loading, ${Math.round(100 * share)} %`,
    starting: () => "stored result; the model is starting",
    ready: () => `the model is there (${seconds.toFixed(1)} s to start)`,
    live: () => `live: ${Math.round(1000 * seconds)} ms for this picture`,
    failed: () => text,
  }[state]();
}

const picture = new Picture(document.getElementById("picture"), store, { change, example });
new Panel(document.getElementById("panel"), store, picture);
const tour = new Tour(document.getElementById("tour"), store, { example });
example(0);
openAsked();
addEventListener("hashchange", openAsked);

/** #walls opens a view, #shear a part of one; #shear/embed shows it alone, in a frame. */
function openAsked() {
  const [name, how] = location.hash.slice(1).split("/");
  const { view, part, geometry } = placeOf(name) ?? {};
  const embedded = Boolean(view) && how === "embed";
  const { classList, dataset } = document.body;
  classList.toggle("embed", embedded);
  classList.toggle("geometry", embedded && geometry);
  dataset.part = embedded ? (part ?? "") : "";
  if (view) store.set({ view });
  if (embedded) store.set(byShape(store.state, 1)); // the star: its tips tell more
  if (part && !embedded) tour.bringIntoSight(`.${part}-part`);
  if (embedded && geometry) return;
  // After the first frame: to unpack the model would take the stored picture's core
  requestAnimationFrame(() => setTimeout(() => model.load()));
}

// For the tests of the page, and for whoever is curious.
window.explorer = { store, model, change, example, randomScene };
