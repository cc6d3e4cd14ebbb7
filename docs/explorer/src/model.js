// The model as the page sees it: loads once, computes the newest picture, drops those between.

import workerSource from "worker-source"; // worker.js, bundled as text: works from disk as well
import { tensor } from "./operators.js";
import { Geometry } from "./geometry.js";
import { detections } from "./detections.js";
import { modelInput } from "./scene.js";
import { onnxMetadata } from "./onnx_metadata.js";
import { asset } from "./assets.js";

export const NO_WASM =
  "This browser does not let the page run WebAssembly, which the model needs (a strict " +
  "security policy or lockdown mode does that). Allow it for this page, or use another " +
  "browser. The stored pictures and everything that is geometry work without it.";

export class Model {
  /** tell({state, share?, seconds?, text?}) hears of loading and errors; found(result, picture)
   *  of results. */
  constructor(tell, found) {
    Object.assign(this, { tell, found, busy: true, next: null, id: 0 });
  }

  /** Loads once; what is asked meanwhile is computed then. */
  load() {
    this.loading ??= this.fetch();
  }

  async fetch() {
    if (!wasmWorks()) return this.tell({ state: "failed", text: NO_WASM });
    try {
      const [wasm, model] = await Promise.all([
        this.bytes("runtime.wasm"),
        this.bytes("model.onnx"),
      ]);
      this.metadata = onnxMetadata(model);
      this.geometry = new Geometry(this.metadata.model_config);
      const url = URL.createObjectURL(new Blob([workerSource], { type: "text/javascript" }));
      this.worker = new Worker(url);
      this.worker.onmessage = ({ data }) => this.hear(data);
      this.worker.onerror = (event) => this.tell({ state: "failed", text: event.message });
      this.tell({ state: "starting" });
      const message = { open: { wasm: wasm.buffer, model: model.buffer } };
      this.worker.postMessage(message, [wasm.buffer, model.buffer]);
    } catch (error) {
      this.tell({ state: "failed", text: error.message });
    }
  }

  async bytes(name) {
    const shares = (this.shares ??= {});
    return asset(name, (share) => {
      shares[name] = share;
      const values = Object.values(shares);
      this.tell({ state: "loading", share: values.reduce((a, b) => a + b, 0) / 2 });
    });
  }

  /** Computes a picture, or remembers it as the next one. */
  see(picture) {
    this.next = picture;
    if (!this.busy) this.start();
  }

  start() {
    [this.seen, this.next, this.busy] = [this.next, null, true];
    const input = modelInput(this.seen.rgb);
    this.worker.postMessage({ run: input, id: ++this.id }, [input.buffer]);
  }

  hear({ opened, done, failed }) {
    if (failed) this.tell({ state: "failed", text: failed });
    if (opened) {
      this.startSeconds = opened.seconds;
      this.tell({ state: "ready", seconds: opened.seconds });
    }
    if (done) {
      this.runSeconds = done.seconds;
      this.tell({ state: "live", seconds: done.seconds });
      this.found(new Result(done.outputs, this), this.seen);
    }
    this.busy = Boolean(failed);
    if (!this.busy && this.next) this.start();
  }
}

/** What the model says about one picture. */
export class Result {
  constructor(outputs, { geometry, metadata }) {
    const { mask_threshold: threshold } = metadata.model_config;
    Object.assign(this, { outputs, geometry, padValue: metadata.pad_value });
    this.detections = detections(outputs, geometry, threshold);
  }

  /** The aligned mask logits of a level and size, (V, U, H, W); null where there are none. */
  aligned(level, sizeId) {
    const found = this.outputs[`aligned_${level}_${sizeId}`];
    return found ? tensor(found.dims.slice(1), found.data) : null;
  }
}

/** Whether this browser compiles WebAssembly: the eight bytes are an empty module. */
function wasmWorks() {
  try {
    return Boolean(new WebAssembly.Module(Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0)));
  } catch {
    return false;
  }
}
