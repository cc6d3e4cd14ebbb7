// What the page knows, in one place. A view reads `state` and is told when it changed.
//
// state: {scene, rgb, numbers, truths     the picture on screen
//         result, resultOf, stored        what the model said, of which picture; a stored one
//         shape, detection                the chosen shape and detection: a number, or null
//         view, settings                  which view is open, and its controls}

export class Store {
  constructor(state) {
    this.state = state;
    this.listeners = new Set();
    this.asked = false;
  }

  /** Changes some of it; everybody is told once per frame. */
  set(changes) {
    Object.assign(this.state, changes);
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => {
      this.asked = false;
      for (const listener of this.listeners) listener(this.state);
    });
  }

  settings(changes) {
    this.set({ settings: { ...this.state.settings, ...changes } });
  }

  listen(listener) {
    this.listeners.add(listener);
  }
}
