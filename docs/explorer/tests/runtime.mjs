// One ONNX file in onnxruntime-web: WebAssembly, one thread, in a headless Chromium.
//
//     node runtime.mjs CHROMIUM MODEL.onnx WITH_RAW.onnx FOLDER RUNS
//
// FOLDER holds pictures, NAME.npy (1, 3, H, W); what comes out of each goes to NAME/OUTPUT.npy.
// Prints one line of JSON: the version, the CPU milliseconds of a run on the first picture.
// benchmarks/runtimes.py starts this; benchmarks/runtime_worker.py is the same for Python's.

import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { dirname, extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const [executablePath, model, withRaw, folder, runs] = process.argv.slice(2);
const RUNTIME = join(
  dirname(fileURLToPath(import.meta.url)),
  "../node_modules/onnxruntime-web",
);
const TYPES = { ".html": "text/html", ".mjs": "text/javascript", ".wasm": "application/wasm" };
const WARM = 2; // runs that make buffers, not timed

// --- a server of the runtime, the file and the pictures, which takes what comes out ----------

function place(path) {
  if (path === "/model.onnx") return model;
  if (path === "/raw.onnx") return withRaw;
  return path.startsWith("/runtime/")
    ? join(RUNTIME, "dist", path.slice("/runtime/".length))
    : join(folder, path);
}

const server = createServer(async (request, answer) => {
  if (request.url === "/") return answer.end("<!doctype html>");
  if (request.method === "POST") {
    const parts = await request.toArray();
    mkdirSync(dirname(place(request.url)), { recursive: true });
    writeFileSync(place(request.url), Buffer.concat(parts));
  } else if (!existsSync(place(request.url))) {
    answer.writeHead(404); // the page's own picture, which browsers ask for
  } else {
    answer.setHeader("content-type", TYPES[extname(request.url)] ?? "application/octet-stream");
    answer.write(readFileSync(place(request.url)));
  }
  answer.end();
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));

// --- in the page -----------------------------------------------------------------------------

/** Opens a file; what later calls need lies in `window`. */
async function open(path) {
  const ort = await import("/runtime/ort.wasm.min.mjs");
  ort.env.wasm.wasmPaths = "/runtime/";
  ort.env.wasm.numThreads = 1; // a second one needs a server that isolates the page
  const session = await ort.InferenceSession.create(path);
  Object.assign(window, { ort, session });
}

/** Computes a picture `runs` times; sends the outputs where `target` says, "": nowhere. */
async function compute({ picture, runs, target }) {
  const { ort, session } = window;
  const KINDS = { float32: "<f4", int64: "<i8", bool: "|b1" };
  const bytes = await (await fetch(picture)).arrayBuffer();
  const start = 10 + new DataView(bytes).getUint16(8, true); // of the numbers in a .npy file
  const header = new TextDecoder().decode(bytes.slice(10, start));
  const shape = header.match(/\(([\d, ]+)\)/)[1].match(/\d+/g).map(Number);
  const images = new ort.Tensor("float32", new Float32Array(bytes, start), shape);
  let outputs;
  for (let i = 0; i < runs; i++) outputs = await session.run({ images });
  if (!target) return;
  for (const [name, { type, dims, data }] of Object.entries(outputs)) {
    const shown = `{'descr': '${KINDS[type]}', 'fortran_order': False, 'shape': (${dims},), }`;
    const padded = shown.padEnd(Math.ceil((shown.length + 11) / 64) * 64 - 11) + "\n";
    const lead = Uint8Array.of(0x93, ...new TextEncoder().encode("NUMPY"), 1, 0, 0, 0);
    new DataView(lead.buffer).setUint16(8, padded.length, true);
    await fetch(`${target}/${name}.npy`, {
      method: "POST",
      body: new Blob([lead, padded, data]),
    });
  }
}

// --- one picture after the other, then the clock ---------------------------------------------

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const page = await browser.newPage();
page.setDefaultTimeout(0);
await page.goto(`http://127.0.0.1:${server.address().port}/`);
const devtools = await browser.newBrowserCDPSession();

/** CPU seconds of the processes that show pages. */
async function spent() {
  const { processInfo } = await devtools.send("SystemInfo.getProcessInfo");
  const pages = processInfo.filter(({ type }) => type === "renderer");
  return pages.reduce((sum, { cpuTime }) => sum + cpuTime, 0);
}

try {
  const pictures = readdirSync(folder).filter((name) => name.endsWith(".npy"));
  pictures.sort();
  await page.evaluate(open, "/raw.onnx");
  for (const name of pictures) {
    const target = `/${name.slice(0, -".npy".length)}`;
    await page.evaluate(compute, { picture: `/${name}`, runs: 1, target });
  }
  await page.evaluate(open, "/model.onnx");
  const first = { picture: `/${pictures[0]}`, target: "" };
  await page.evaluate(compute, { ...first, runs: WARM });
  const before = await spent();
  await page.evaluate(compute, { ...first, runs: Number(runs) });
  const cpu_ms = Number(((1e3 * ((await spent()) - before)) / Number(runs)).toFixed(2));
  const { version } = JSON.parse(readFileSync(join(RUNTIME, "package.json")));
  console.log(JSON.stringify({ version, cpu_ms }));
} catch (error) {
  console.log(JSON.stringify({ error: error.message.split(/\s+/).join(" ").slice(0, 400) }));
}
await browser.close();
server.close();
