// Every page of the served site, found by its links, in a headless Chromium on a narrow screen:
//
//     node site.mjs ADDRESS CHROMIUM REPORT.json
//
// What is there goes to REPORT.json; tests/test_site.py judges.

import { writeFileSync } from "node:fs";
import { chromium } from "playwright-core";

const [address, executablePath, reportPath] = process.argv.slice(2);
const NARROW = { width: 390, height: 900 };
const args = ["--no-sandbox"]; // as root in a container; it opens our own server alone
const browser = await chromium.launch({ executablePath, args });
const context = await browser.newContext({ viewport: NARROW, colorScheme: "dark" });

/** A page's own words and pictures, and where it leads. */
const contents = () => ({
  anchors: [...document.querySelectorAll("[id]")].map((element) => element.id),
  links: [...document.querySelectorAll("a[href], link[href]")].map((link) => link.href),
  width: document.documentElement.scrollWidth,
  images: [...document.querySelectorAll("article img")].map((image) => ({
    alt: image.alt,
    isWhole: image.complete && image.naturalWidth > 0,
  })),
});

async function look(url) {
  const page = await context.newPage();
  const seen = { errors: [], outside: [] };
  page.on("pageerror", (error) => seen.errors.push(error.message));
  page.on("console", (message) => {
    if (message.type() === "error") seen.errors.push(message.text());
  });
  page.on("request", (request) => {
    const isOurs = /^(data|blob):/.test(request.url()) || request.url().startsWith(address);
    if (!isOurs) seen.outside.push(request.url());
  });
  const answer = await page.goto(url, { waitUntil: "load" });
  Object.assign(seen, { status: answer.status() }, await page.evaluate(contents));
  await page.close();
  return seen;
}

// The explorer's own pages have tests of their own: here they only have to be there.
const isPage = (url) => url.endsWith(".html") && !url.includes("/explorer/");
const report = { pages: {}, files: {}, outside: new Set() };
const waiting = [`${address}/index.html`];
for (const url of waiting) {
  if (!isPage(url)) {
    report.files[url] = (await context.request.get(url)).status();
    continue;
  }
  const seen = (report.pages[url] = await look(url));
  for (const link of seen.links) {
    const [target] = link.split("#");
    if (!link.startsWith(address)) report.outside.add(link);
    else if (!waiting.includes(target)) waiting.push(target);
  }
}
await browser.close();
writeFileSync(reportPath, JSON.stringify({ ...report, outside: [...report.outside] }, null, 1));
