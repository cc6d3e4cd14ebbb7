// Builds the explorer from what `npm install` brought; uses no network.
//
//     node build.mjs MODEL.onnx [--output FOLDER]
//
// MODEL.onnx is a file of `tensormask-export onnx CHECKPOINT MODEL.onnx --inner logits
// aligned`. FOLDER (default: built) receives
//     index.html, page.js, page.css, runtime.wasm.gz, model.onnx.gz    to be served
//     tensormask.html                                                  all in one, from disk

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { stored } from "./stored.mjs";

const HERE = dirname(fileURLToPath(import.meta.url));
const WASM = join(HERE, "node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm");
const options = { output: { type: "string", default: join(HERE, "built") } };
const { values, positionals } = parseArgs({ options, allowPositionals: true });
const [modelPath] = positionals;
if (!modelPath) {
  console.error("error: model: expected the path of an ONNX file; `make explorer` makes one");
  process.exit(2);
}

const common = {
  bundle: true,
  write: false,
  minify: true,
  target: "es2022",
  logLevel: "error",
};

async function bundled(entry, more = {}) {
  const { outputFiles } = await build({ ...common, entryPoints: [join(HERE, entry)], ...more });
  return outputFiles[0].text;
}

/** Modules that are made here: name -> text of a module. */
function made(modules) {
  return {
    name: "made",
    setup(plugin) {
      plugin.onResolve({ filter: /^(worker-source|stored-results)$/ }, ({ path }) => ({
        path,
        namespace: "made",
      }));
      plugin.onLoad({ filter: /.*/, namespace: "made" }, ({ path }) => ({
        contents: `export default ${JSON.stringify(modules[path])};`,
      }));
    },
  };
}

const model = readFileSync(modelPath);
const wasm = readFileSync(WASM);
// The runtime's own loader asks where its script lies; in a worker made of text that is
// nowhere.
const worker = await bundled("src/worker.js", {
  format: "iife",
  define: { "import.meta.url": '"https://localhost/"' },
});
const results = await stored(model, wasm);
const plugins = [made({ "worker-source": worker, "stored-results": results })];
const script = await bundled("src/main.js", { format: "iife", plugins });
const style = await bundled("src/style.css");
const page = readFileSync(join(HERE, "src/index.html"), "utf8");

mkdirSync(values.output, { recursive: true });
const packed = {
  "runtime.wasm": gzipSync(wasm, { level: 9 }),
  "model.onnx": gzipSync(model, { level: 9 }),
};
for (const [name, bytes] of Object.entries(packed)) write(`${name}.gz`, bytes);
write("page.js", script);
write("page.css", style);
write(
  "index.html",
  filled(page, {
    style: '<link rel="stylesheet" href="page.css">',
    script: '<script src="page.js" defer></script>',
  }),
);
const inside = Object.entries(packed).map(
  ([name, bytes]) =>
    `<script type="application/gzip;base64" id="${name}">${bytes.toString("base64")}</script>`,
);
write(
  "tensormask.html",
  filled(page, {
    style: `<style>${style}</style>`,
    // A closing tag inside a string would end the script
    script: [...inside, `<script>${script.replaceAll("</script", "<\\/script")}</script>`].join(
      "\n",
    ),
  }),
);

/** The page with its two places filled. */
function filled(text, places) {
  return text.replace(/<!-- (style|script) -->/g, (_, name) => places[name]);
}

function write(name, content) {
  writeFileSync(join(values.output, name), content);
  console.log(
    `${join(values.output, name)}  ${(Buffer.byteLength(content) / 1000).toFixed(0)} kB`,
  );
}
