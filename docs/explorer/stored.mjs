// What the model says about the five examples, for the page to show while it loads.

import * as ort from "onnxruntime-web/wasm";
import { detections } from "./src/detections.js";
import { EXAMPLES } from "./src/examples.js";
import { Geometry } from "./src/geometry.js";
import { onnxMetadata } from "./src/onnx_metadata.js";
import { modelInput, render } from "./src/scene.js";

const SHOWN = 0.5; // as in the page

/** Per example [{box, score, label, window, canvas, columns}], a canvas as base64 of bytes. */
export async function stored(model, wasm) {
  ort.env.wasm.wasmBinary = wasm;
  ort.env.wasm.numThreads = 1;
  const { model_config: config } = onnxMetadata(model);
  const session = await ort.InferenceSession.create(model);
  const results = [];
  for (const { scene } of EXAMPLES) {
    const input = modelInput(render(scene).rgb);
    const outputs = await session.run({
      images: new ort.Tensor("float32", input, [1, 3, 128, 128]),
    });
    const found = detections(outputs, new Geometry(config), config.mask_threshold);
    const shown = found.filter(({ score }) => score >= SHOWN);
    results.push(
      shown.map(({ box, score, label, window, canvas, columns }) => ({
        box: box.map((value) => Number(value.toFixed(2))),
        score: Number(score.toFixed(4)),
        label,
        window,
        canvas: Buffer.from(canvas.map((p) => Math.round(255 * p))).toString("base64"),
        columns,
      })),
    );
  }
  return results;
}
