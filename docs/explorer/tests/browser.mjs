// The built page in a headless Chromium, by the DevTools protocol (playwright-core, no
// download):
//
//     node browser.mjs FOLDER CHROMIUM REPORT.json
//
// FOLDER is what build.mjs made. What happened goes to REPORT.json; tests/test_live_page.py
// judges.

import { readFileSync, existsSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const [folder, executablePath, reportPath] = process.argv.slice(2);
const MINUTES = 60_000;
const PATIENCE = 10 * MINUTES; // machines are shared; nothing here is a time limit of the page
const PICTURES = 20;
const GESTURES = 200;
const MOMENT = 5_000; // what a hand waits for before it does something else
const VIEWS = ["window", "walls", "upscale", "bipyramid", "assignment"];
const report = { requests: [], console: [], errors: [], hits: 0, misses: 0 };

// --- a plain file server ---------------------------------------------------------------------

const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css" };
const server = createServer(({ url }, answer) => {
  const path = join(
    folder,
    new URL(url, "http://local").pathname.replace(/\/$/, "/index.html"),
  );
  if (!existsSync(path)) return answer.writeHead(404).end();
  answer.writeHead(200, { "content-type": TYPES[extname(path)] ?? "application/octet-stream" });
  answer.end(readFileSync(path));
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
const origin = `http://127.0.0.1:${server.address().port}`;

const args = ["--no-sandbox"]; // as root in a container; it opens our own page alone
const browser = await chromium.launch({ executablePath, args });

/** A page whose every request and word is written down. */
async function opened(url, options = {}) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  page.on("request", (request) => report.requests.push(request.url()));
  page.on("console", (message) => report.console.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => report.errors.push(error.message));
  await page.goto(url);
  return page;
}

const state = (page) => page.evaluate(() => document.getElementById("status").dataset.state);
const until = (page, wanted) =>
  page.waitForFunction(
    (name) => document.getElementById("status").dataset.state === name,
    wanted,
  );

// --- the numbers -----------------------------------------------------------------------------

/** Draws pictures in the page; pixels and detections of each. */
async function numbers(page) {
  return page.evaluate(async (count) => {
    const { store, model, change, randomScene } = window.explorer;
    const base64 = (bytes) => btoa(Array.from(bytes, (b) => String.fromCharCode(b)).join(""));
    const found = [];
    for (let seed = 0; seed < count; seed++) {
      const scene = randomScene(1000 + seed);
      change(scene);
      while (store.state.resultOf?.scene !== scene) await new Promise((r) => setTimeout(r, 20));
      const { rgb, result } = store.state;
      found.push({
        seconds: model.runSeconds,
        rgb: base64(rgb),
        detections: result.detections.map(({ box, score, label, mask }) => ({
          box,
          score,
          label,
          mask: base64(mask),
        })),
      });
    }
    return { found, metadata: model.metadata };
  }, PICTURES);
}

// --- 200 gestures ----------------------------------------------------------------------------

/** Numbers in [0, 1) that a seed repeats. */
function randomFrom(seed) {
  let state = seed;
  return () => (state = (state * 48271) % 2147483647) / 2147483647;
}

async function gestures(page) {
  const random = randomFrom(7);
  const any = (list) => list[Math.floor(random() * list.length)];
  const stage = page.locator("#picture .stage svg");
  const within = (low, high) => low + (high - low) * random();
  const place = (box, beyond = 0) => [
    box.x + within(-beyond, box.width + beyond),
    box.y + within(-beyond, box.height + beyond),
  ];
  const press = (key) => async () => {
    await stage.focus();
    await page.keyboard.press(key);
  };
  const click = (selector) => async () => {
    const all = await page.locator(`${selector}:visible:not(:disabled)`).elementHandles();
    if (all.length) await tried(any(all).click({ timeout: MOMENT }));
  };
  // What was seen may be gone when the hand arrives: a new result draws the lists anew
  const tried = (action) =>
    action.then(
      () => (report.hits += 1),
      (error) => {
        if (!/not attached|Timeout/.test(error.message)) throw error;
        report.misses += 1;
      },
    );
  const drag = (beyond) => async () => {
    await stage.scrollIntoViewIfNeeded(); // the tour moves the page
    const box = await stage.boundingBox();
    await page.mouse.move(...place(box));
    await page.mouse.down();
    for (let i = 0; i < 4; i++) await page.mouse.move(...place(box, beyond));
    await page.mouse.up();
  };
  const kinds = [
    drag(0),
    drag(60), // to the rim and beyond it
    press("n"),
    press("+"),
    press("-"),
    press("ArrowLeft"),
    press("]"),
    press("Delete"),
    press("m"),
    click("#picture .examples button"),
    click("#picture .tools button:not(:last-of-type)"),
    click("#panel .tabs button"),
    click("#panel .choice button"),
    click("#tour button"),
    click("#picture .found button"),
    async () => {
      const [canvas] = await page.locator("#panel canvas:visible").elementHandles();
      if (canvas) await tried(canvas.hover({ timeout: MOMENT }));
    },
  ];
  for (let i = 0; i < GESTURES; i++) await any(kinds)();
}

/** Zero-size shapes, shapes on shapes, a large photo, a file that is no picture. */
async function extremes(page) {
  await page.evaluate(() => window.explorer.example(0));
  await page.locator("#picture .stage svg").focus();
  for (const key of ["n", ..."-".repeat(60), ..."+".repeat(80)]) await page.keyboard.press(key);
  for (let i = 0; i < 42; i++)
    await page
      .locator("#picture .tools button")
      .nth(i % 4)
      .click();
  const shapes = await page.evaluate(() => window.explorer.store.state.scene.shapes.length);
  const photo = await page.evaluate(() => {
    const canvas = Object.assign(document.createElement("canvas"), {
      width: 6000,
      height: 4000,
    });
    canvas.getContext("2d").fillRect(100, 100, 3000, 2000);
    return canvas.toDataURL("image/jpeg", 0.5).split(",")[1];
  });
  const file = page.locator("#picture input[type=file]");
  const said = async () => page.locator("#picture .says").textContent();
  const give = async (name, mimeType, buffer, word) => {
    await file.setInputFiles({ name, mimeType, buffer });
    await page.waitForFunction(
      (w) => document.querySelector(".says").textContent.includes(w),
      word,
    );
    return said();
  };
  return {
    shapes,
    photo: await give("photo.jpg", "image/jpeg", Buffer.from(photo, "base64"), "6000"),
    noPicture: await give("notes.png", "image/png", Buffer.from("no picture"), "no picture"),
  };
}

// --- what is chosen, what the tour points at, what a frame shows -----------------------------

/** Chooses every shape of the first example; the class of each and of the mask then open. */
async function choices(page) {
  await page.evaluate(() => window.explorer.example(0));
  await settled(page);
  const found = [];
  for (let i = 0; i < 3; i++) {
    await page.locator("#picture .stage svg").press("n");
    found.push(
      await page.evaluate(() => {
        const { scene, shape, detection, result } = window.explorer.store.state;
        return [scene.shapes[shape].kind, result.detections[detection]?.label ?? null];
      }),
    );
  }
  return found;
}

/** Walks through the tour; per step the share of what it marks that is in sight. */
async function tour(page) {
  const steps = Number((await page.textContent("#tour .count")).split(" ").at(-1));
  const shares = [];
  for (let i = 1; i < steps; i++) {
    await page.click("#tour .next");
    await page.evaluate(() => new Promise((r) => setTimeout(r, 300))); // drawn and scrolled
    shares.push(
      await page.evaluate(() => {
        const { top, bottom } = document.querySelector(".pointed").getBoundingClientRect();
        const under = document.getElementById("tour").getBoundingClientRect().bottom;
        const seen = Math.min(bottom, innerHeight) - Math.max(top, under);
        return seen / Math.min(bottom - top, innerHeight - under);
      }),
    );
  }
  return shares;
}

const PLACES = ["header", "#tour", "footer", ".tabs", ".tools", "#picture"];
const INSIDE = [".walls", ".shear-part", ".lam-part", ".four", ".rules"];

/** Per address: which of these places a frame shows, and whether it loads the model. */
async function frames() {
  const shown = {};
  for (const name of ["shear", "lam", "assignment", "walls"]) {
    const page = await opened(`${origin}/#${name}/embed`, {
      viewport: { width: 700, height: 600 },
    });
    await page.waitForSelector("#panel [role=tabpanel]:not([hidden])");
    shown[name] = await page.evaluate(
      async (places) => {
        // After its first frame the page loads the model, or never
        await new Promise((r) => requestAnimationFrame(() => setTimeout(() => setTimeout(r))));
        return {
          places: places.filter((place) => document.querySelector(place).checkVisibility()),
          model: Boolean(window.explorer.model.loading),
        };
      },
      [...PLACES, ...INSIDE],
    );
    await page.context().close();
  }
  return shown;
}

/** Bytes that the page holds, arrays and elements included, with every view drawn once. */
async function memory(page) {
  await page.evaluate(() => window.explorer.example(0));
  await settled(page);
  for (const view of [...VIEWS, "window"]) await show(page, view);
  const session = await page.context().newCDPSession(page);
  await session.send("HeapProfiler.collectGarbage");
  const usage = await session.send("Runtime.getHeapUsage");
  await session.detach();
  const { usedSize, embedderHeapUsedSize = 0, backingStorageSize = 0 } = usage;
  return usedSize + embedderHeapUsedSize + backingStorageSize;
}

async function show(page, view) {
  await page.evaluate((name) => window.explorer.store.set({ view: name }), view);
  await page.waitForSelector(`#view-${view}:not([hidden])`);
}

const settled = (page) =>
  page.waitForFunction(() => {
    const { store, model } = window.explorer;
    return !model.busy && !model.next && store.state.resultOf?.scene === store.state.scene;
  });

// --- one after the other ---------------------------------------------------------------------

const begun = performance.now();
const since = () => (performance.now() - begun) / 1000;
const live = await opened(`${origin}/`, { viewport: { width: 1200, height: 900 } });
await live.waitForSelector(".masks .mask");
report.seconds = { stored: since() };
report.storedFirst = (await state(live)) !== "live"; // masks before the model was there
await until(live, "live");
report.seconds.live = since();
report.seconds.runtimeStart = await live.evaluate(() => window.explorer.model.startSeconds);
await live.context().setOffline(true); // from here on nothing could come even if it asked
report.numbers = await numbers(live);
report.choices = await choices(live);
report.memoryBefore = await memory(live);
await gestures(live);
report.extremes = await extremes(live);
report.memoryAfter = await memory(live);
report.stateAfter = await state(live);
await live.context().close();

report.frames = await frames();

const phone = { viewport: { width: 390, height: 800 }, reducedMotion: "reduce" };
const narrow = await opened(`${origin}/`, phone);
await narrow.waitForSelector(".masks .mask");
report.widths = {};
for (const view of VIEWS) {
  await show(narrow, view);
  report.widths[view] = await narrow.evaluate(() => document.documentElement.scrollWidth);
}
await until(narrow, "live");
report.tour = await tour(narrow);
await narrow.context().close();

const policy = await browser.newContext();
await policy.addInitScript(() => delete globalThis.WebAssembly);
const refused = await policy.newPage();
await refused.goto(`${origin}/`);
await refused.waitForFunction(
  () => document.getElementById("status").dataset.state === "failed",
);
report.withoutWasm = await refused.textContent("#status");
await policy.close();

const single = await opened(pathToFileURL(resolve(folder, "tensormask.html")).href);
await until(single, "live");
report.fromDisk = await state(single);

await browser.close();
server.close();
writeFileSync(reportPath, JSON.stringify({ ...report, origin }));
