// The model, in a thread of its own: onnxruntime-web computes, the hand stays free.
//
// in:  {open: {wasm, model}}       bytes of the runtime and of the ONNX file
//      {run: input, id}            float32 (1, 3, 128, 128)
// out: {opened: {seconds}}, {done: {outputs, id, seconds}}, {failed: text}

import * as ort from "onnxruntime-web/wasm";

let session;

self.onmessage = async ({ data }) => {
  const start = performance.now();
  const seconds = () => (performance.now() - start) / 1000;
  try {
    if (data.open) {
      session = await open(data.open);
      self.postMessage({ opened: { seconds: seconds() } });
    } else {
      const outputs = await run(data.run);
      const buffers = Object.values(outputs).map(({ data: values }) => values.buffer);
      self.postMessage({ done: { outputs, id: data.id, seconds: seconds() } }, buffers);
    }
  } catch (error) {
    self.postMessage({ failed: String(error.message ?? error) });
  }
};

function open({ wasm, model }) {
  ort.env.wasm.wasmBinary = wasm;
  // Two threads need a server that isolates the page (COOP and COEP); one needs nothing.
  ort.env.wasm.numThreads = 1;
  return ort.InferenceSession.create(new Uint8Array(model), {
    executionProviders: ["wasm"],
    graphOptimizationLevel: "all",
  });
}

async function run(input) {
  const images = new ort.Tensor("float32", input, [1, 3, 128, 128]);
  const found = await session.run({ images });
  const plain = ([name, { dims, data }]) => [name, { dims, data: data.slice() }];
  return Object.fromEntries(Object.entries(found).map(plain));
}
