// The bar of the guided tour: one step at a time, over the live page.

import { h } from "./dom.js";
import { STEPS } from "./steps.js";

export class Tour {
  /** example(number) shows a stored picture. */
  constructor(root, store, { example }) {
    Object.assign(this, { root, store, example, number: 0 });
    this.title = h("h2", {});
    this.text = h("p", { "aria-live": "polite" });
    this.count = h("span", { class: "count" });
    this.back = h(
      "button",
      { type: "button", onclick: () => this.show(this.number - 1) },
      "Back",
    );
    this.next = h(
      "button",
      { type: "button", class: "next", onclick: () => this.show(this.number + 1) },
      "Next",
    );
    root.append(
      h("div", { class: "step" }, this.title, this.text),
      h("div", { class: "controls" }, this.back, this.count, this.next),
    );
    this.write();
  }

  show(number) {
    this.number = (number + STEPS.length) % STEPS.length;
    const { example, view, shape, settings } = STEPS[this.number];
    if (example != null) this.example(example);
    const state = this.store.state;
    this.store.set({
      view,
      shape: shape ?? state.shape,
      settings: { ...state.settings, ...settings },
    });
    this.write();
  }

  write() {
    const { title, text } = STEPS[this.number];
    this.title.textContent = title;
    this.text.textContent = text;
    this.count.textContent = `${this.number + 1} of ${STEPS.length}`;
    this.back.disabled = this.number === 0;
    this.next.textContent = this.number === STEPS.length - 1 ? "Again" : "Next";
  }
}
