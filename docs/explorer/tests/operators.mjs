// Every case in cases.json through the page's operators: `node operators.mjs MODULE
// cases.json`. A case is {op, shape: [N, V, U, H, W], x, arguments, index?}; the results go to
// stdout as JSON, one flat list of numbers per case. tests/test_live_page.py compares them with
// NumPy's.

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [module, cases] = process.argv.slice(2);
const ops = await import(pathToFileURL(module));

/** The call of one case on one picture's tensor. */
const CALLS = {
  align2nat: (x, { units }) => ops.align2nat(x, units).data,
  nat2align: (x, { units }) => ops.nat2align(x, units).data,
  up_bilinear: (x, { lam, units }) => ops.upBilinear(x, lam, units).data,
  up_nearest: (x, { lam }) => ops.upNearest(x, lam).data,
  up_align2nat: (x, { lam, units }) => ops.upAlign2nat(x, lam, units).data,
  subsample: (x, { lam }) => ops.subsample(x, lam).data,
  swap_nearest: (x, { lam, units }) => swapNearest(x, lam, units.padValue),
  swap_align2nat: (x, { lam, units }) => ops.swapAlign2nat(x, lam, units.padValue).data,
};

/** sigma_vu -> sigmaVu: the arguments as JavaScript writes them. */
function camel(values) {
  const renamed = (name) => name.replace(/_(\w)/g, (_, letter) => letter.toUpperCase());
  return Object.fromEntries(Object.entries(values).map(([k, v]) => [renamed(k), v]));
}

/** Window after window of one picture, with bins first: (lam*V, lam*U, rows, columns). */
function swapNearest(x, lam, padValue) {
  const [rows, columns] = x.shape.slice(2).map((extent) => Math.ceil(extent / lam));
  const cells = Array.from({ length: rows * columns }, (_, i) => [
    Math.floor(i / columns),
    i % columns,
  ]);
  const windows = cells.map((cell) =>
    ops.swapAlign2natWindow(x, lam, cell, padValue, ops.nearestTap),
  );
  return Array.from(windows[0]).flatMap((_, bin) => windows.map((window) => window[bin]));
}

function computed({ op, shape: [N, ...shape], x, arguments: given, index }) {
  const size = shape.reduce((product, extent) => product * extent, 1);
  const pictures = Array.from({ length: N }, (_, n) =>
    ops.tensor(shape, Float64Array.from(x.slice(n * size, (n + 1) * size))),
  );
  const { lam, ...units } = camel(given);
  if (op === "swap_align2nat_windows") {
    return index.flatMap(([n, ...cell]) =>
      Array.from(ops.swapAlign2natWindow(pictures[n], lam, cell, units.padValue)),
    );
  }
  return pictures.flatMap((picture) => Array.from(CALLS[op](picture, { lam, units })));
}

const results = JSON.parse(readFileSync(cases, "utf8")).map(computed);
process.stdout.write(JSON.stringify(results));
