// The views beside the picture, one open at a time.

import { h } from "./dom.js";
import { WindowView } from "./views/window.js";
import { WallsView } from "./views/walls.js";
import { UpscaleView } from "./views/upscale.js";
import { BipyramidView } from "./views/bipyramid.js";
import { AssignmentView } from "./views/assignment.js";

// A view: constructor(root, store), render(state), layer(state): SVG elements for the picture;
// tap([x, y]), if a tap on the picture means something to it.
const VIEWS = {
  window: ["Open a mask", WindowView],
  walls: ["Two walls", WallsView],
  upscale: ["Pixels for free", UpscaleView],
  bipyramid: ["Bipyramid", BipyramidView],
  assignment: ["Who learns it", AssignmentView],
};

// A part of a view has an address of its own: its class, in a section.
const PARTS = { shear: "walls", lam: "upscale" };
// What needs no model, so that a frame with nothing else loads none
const GEOMETRY = ["shear", "lam", "bipyramid", "assignment"];

/** {view, part, geometry} of a name in an address; null if there is none of that name. */
export function placeOf(name) {
  const view = PARTS[name] ?? name;
  if (!(view in VIEWS)) return null;
  return { view, part: name in PARTS ? name : null, geometry: GEOMETRY.includes(name) };
}

export class Panel {
  constructor(root, store, picture) {
    Object.assign(this, { store, picture, views: {}, pages: {} });
    this.tabs = Object.entries(VIEWS).map(([name, [title]]) =>
      h(
        "button",
        {
          type: "button",
          role: "tab",
          id: `tab-${name}`,
          "aria-controls": `view-${name}`,
          onclick: () => store.set({ view: name }),
          onkeydown: (event) => this.key(event, name),
        },
        title,
      ),
    );
    root.append(h("div", { class: "tabs", role: "tablist", "aria-label": "Views" }, this.tabs));
    for (const [name, [, View]] of Object.entries(VIEWS)) {
      const page = h("div", {
        role: "tabpanel",
        id: `view-${name}`,
        "aria-labelledby": `tab-${name}`,
        hidden: true,
      });
      root.append(page);
      this.pages[name] = page;
      this.views[name] = new View(page, store);
    }
    store.listen((state) => this.render(state));
  }

  key(event, name) {
    const names = Object.keys(VIEWS);
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = (names.indexOf(name) + step + names.length) % names.length;
    this.store.set({ view: names[next] });
    this.tabs[next].focus();
  }

  render(state) {
    Object.keys(VIEWS).forEach((name, i) => {
      const open = name === state.view;
      this.pages[name].hidden = !open;
      this.tabs[i].setAttribute("aria-selected", String(open));
      this.tabs[i].tabIndex = open ? 0 : -1;
    });
    this.picture.stage.dataset.view = state.view; // masks step back where truth is the subject
    const view = this.views[state.view];
    this.picture.tap = view.tap?.bind(view);
    view.render(state);
    this.picture.layer.replaceChildren(...view.layer(state));
  }
}
