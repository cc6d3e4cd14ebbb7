// Every lesson in JupyterLab, in a headless Chromium:
//
//     node lab.mjs ADDRESS TOKEN CHROMIUM REPORT.json LESSON.ipynb ...
//
// ADDRESS is of a running server whose folder `work` has the lessons. What happened goes to
// REPORT.json; tests/test_lab.py judges.

import { writeFileSync } from "node:fs";
import { chromium } from "playwright-core";

const [address, token, executablePath, reportPath, ...lessons] = process.argv.slice(2);
const PATIENCE = 10 * 60_000; // machines are shared; nothing here is a time limit of a lesson
const args = ["--no-sandbox"]; // as root in a container; it opens our own server alone
const browser = await chromium.launch({ executablePath, args });

/** Clicks through a slider of every picture that has some; whether each picture changed. */
const moved = (page) =>
  page.evaluate(() =>
    [...document.querySelectorAll('[id^="explorer-"]')].map((box) => {
      const slider = box.querySelector("input");
      const seen = () => box.querySelector(".lit").innerHTML + box.textContent;
      const before = seen();
      slider.value = slider.min;
      slider.dispatchEvent(new Event("input"));
      return seen() !== before;
    }),
  );

/** Addresses of all links and pictures of a lesson's text, as the browser would open them. */
const linksOf = (page) =>
  page.evaluate(() => {
    const links = [...document.querySelectorAll(".jp-RenderedMarkdown a[href]")];
    return [...new Set(links.map((link) => link.href.split("#")[0]))];
  });

async function look(lesson) {
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  page.setDefaultTimeout(PATIENCE);
  const errors = [];
  page.on("pageerror", (error) => errors.push(error.message));
  await page.goto(`${address}/lab/tree/work/${lesson}?token=${token}&reset`);
  await page.waitForFunction(
    (name) => window.jupyterapp?.shell.currentWidget?.title.label === name,
    lesson,
  );
  await page.waitForFunction(
    () =>
      window.jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status === "idle",
  );
  await page.waitForSelector(".jp-RenderedMarkdown h1");
  const stored = await moved(page);
  await page.evaluate(() => window.jupyterapp.commands.execute("notebook:run-all-cells"));
  const cells = await page.evaluate(() =>
    window.jupyterapp.shell.currentWidget.content.model.sharedModel
      .toJSON()
      .cells.filter((cell) => cell.cell_type === "code"),
  );
  const outputs = cells.flatMap((cell) => cell.outputs);
  const links = {};
  for (const url of await linksOf(page)) {
    const inside = url.startsWith(address);
    links[url.replace(address, "")] = inside
      ? (await page.request.get(url)).status()
      : "outside";
  }
  const result = {
    errors,
    links,
    stored,
    run: await moved(page),
    notRun: cells.filter((cell) => !cell.execution_count).length,
    failed: outputs.filter((output) => output.output_type === "error").map((o) => o.evalue),
    pictures: await page.locator(".jp-RenderedImage img").count(),
  };
  await page.evaluate(() => window.jupyterapp.serviceManager.sessions.shutdownAll());
  await page.close();
  return result;
}

const report = {};
for (const lesson of lessons) report[lesson] = await look(lesson);
await browser.close();
writeFileSync(reportPath, JSON.stringify(report, null, 1));
