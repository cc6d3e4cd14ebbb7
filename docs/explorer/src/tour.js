// The bar of the guided tour: one step at a time, over the live page.

import { h, still } from "./dom.js";
import { byShape } from "./match.js";
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
    this.close = h(
      "button",
      { type: "button", "aria-label": "Close the tour", onclick: () => this.fold(true) },
      "×",
    );
    const open = { type: "button", hidden: true, onclick: () => this.fold(false) };
    this.take = h("button", open, "Take the tour");
    root.append(
      h("div", { class: "step" }, this.title, this.text),
      h("div", { class: "controls" }, this.back, this.count, this.next, this.close, this.take),
    );
    this.write();
    // The bar stays in sight: what scrolls stops below it
    new ResizeObserver(() =>
      document.documentElement.style.setProperty("--tour", `${root.offsetHeight}px`),
    ).observe(root);
  }

  show(number) {
    this.number = (number + STEPS.length) % STEPS.length;
    const { example, view, shape, settings, at } = STEPS[this.number];
    if (example != null) this.example(example);
    const { state } = this.store;
    this.store.set({ view, ...(shape == null ? {} : byShape(state, shape)) });
    this.store.settings(settings ?? {});
    this.write();
    this.bringIntoSight(at);
  }

  /** Brings an element into sight once it is drawn, and marks it until the next step. */
  bringIntoSight(selector) {
    const pointAt = () => {
      this.unmark();
      const element = document.querySelector(selector);
      element.classList.add("pointed");
      element.scrollIntoView({ block: "nearest", behavior: still() ? "auto" : "smooth" });
    };
    // Two frames: in the first the views are drawn, and then things lie where they stay
    requestAnimationFrame(() => requestAnimationFrame(pointAt));
  }

  unmark() {
    document.querySelector(".pointed")?.classList.remove("pointed");
  }

  /** Folds the bar away, or takes the tour up where it was left. */
  fold(folded) {
    this.root.classList.toggle("folded", folded);
    this.close.hidden = folded;
    this.take.hidden = !folded;
    (folded ? this.take : this.close).focus();
    if (folded) this.unmark();
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
