#!/usr/bin/env node
// Opens every page of a status site in headless Chromium and names what a reader would stumble over.
//
//   open_site.mjs SITE [--page PATH]... [--screenshots DIR]
//   open_site.mjs --self-test
//
// SITE is a folder of a built site, or the address of a running `hydromesh`; pages are those of its manifest.json.
// A folder is served on loopback with the headers of src/serve/, and opened from disk as well. Each page is opened light and
// dark, at 1280 and at 320 pixels, and with JavaScript off. --page keeps to some pages; --screenshots writes pictures of them.
// --self-test opens a site with one fault a page and expects each to be found, and nothing else.
//
// Needs Node 18 or newer and Chromium, in HYDROMESH_CHROMIUM or on the path (scripts/services/chromium.sh brings both).
// Exit code: 0 nothing found, 1 something found, 2 the check itself cannot run.

import { spawnSync } from "node:child_process";
import { mkdir, readFile, realpath, stat, writeFile } from "node:fs/promises";
import { join, resolve, sep } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

import { Browser, within } from "./open_site/chromium.mjs";
import { inspect } from "./open_site/inspect.mjs";
import { serve } from "./open_site/server.mjs";

/// Tabs at a time. Most of a page's time is the half second of silence that is waited for, so it is not a number of cores.
const TABS = 8;
const WIDE = 1280;
/// The width at which WCAG 2 (1.4.10) asks that nobody has to scroll sideways: 1280 pixels at a zoom of 400 %.
const NARROW = 320;

const VARIANTS = [
    { name: "light, 1280 px", theme: "light", width: WIDE },
    { name: "dark, 1280 px", theme: "dark", width: WIDE },
    { name: "light, 320 px", theme: "light", width: NARROW },
    { name: "dark, 320 px", theme: "dark", width: NARROW },
    // Structure is judged here: what counts is what a reader gets without a script.
    { name: "without JavaScript", theme: "light", width: WIDE, scripts: false, structure: true },
];
const FROM_DISK = { name: "from disk", theme: "light", width: WIDE, disk: true, structure: true };

/// A site to look at: where it is served, where it lies (absent for a running server), and its pages.
async function siteOf(base, folder) {
    const answer = await fetch(new URL("manifest.json", base));
    if (!answer.ok) throw new Error(`${folder ?? base} has no manifest.json, so it is no site of Hydromesh`);
    const { files } = await answer.json();
    const pages = Object.keys(files)
        .filter((path) => path.endsWith(".html"))
        .sort();
    if (pages.length === 0) throw new Error(`the manifest of ${folder ?? base} names no page`);
    const roots = { served: base, disk: folder && pathToFileURL(`${folder}${sep}`).href };
    return { roots, pages, variants: folder ? [...VARIANTS, FROM_DISK] : VARIANTS, files: new Map() };
}

/// Returns the content of a file of the site, or null. The answer is kept: the same few files are linked from every page.
function content(site, url) {
    if (!site.files.has(url)) {
        const read = url.startsWith("file:")
            ? readFile(fileURLToPath(url), "utf8").catch(() => null)
            : fetch(url).then((answer) => (answer.ok ? answer.text() : null));
        site.files.set(url, read);
    }
    return site.files.get(url);
}

/// Returns what is wrong with the links of a page. Only links within the site are followed.
async function brokenLinks(site, root, links) {
    const faults = new Set();
    for (const { raw, url } of links) {
        const target = new URL(url);
        const anchor = decodeURIComponent(target.hash.slice(1));
        target.hash = "";
        if (!target.href.startsWith(root)) {
            const own = target.protocol === new URL(root).protocol && target.host === new URL(root).host;
            if (own) faults.add(`a link that leads out of the site: ${raw}`);
            else if (!["https:", "http:", "mailto:"].includes(target.protocol))
                faults.add(`a link of an odd kind: ${raw}`);
            continue;
        }
        const text = await content(site, target.href);
        if (text === null) faults.add(`a link to what is not there: ${raw}`);
        else if (anchor && !text.includes(` id="${anchor}"`))
            faults.add(`a link to an anchor that is not there: ${raw}`);
    }
    return [...faults];
}

/// Notes everything that a tab tells about trouble.
function watch(root, faults) {
    const urls = new Map();
    const short = (url) => (url?.startsWith(root) ? url.slice(root.length) : String(url ?? "?").slice(0, 120));
    const note = (what) => faults.push(what.replace(/\s+/g, " ").trim());
    const on = {
        "Runtime.consoleAPICalled": ({ type, args }) => {
            if (["error", "warning", "assert"].includes(type)) {
                note(`console ${type}: ${args.map((arg) => arg.value ?? arg.description ?? arg.type).join(" ")}`);
            }
        },
        "Log.entryAdded": ({ entry }) => {
            if (["error", "warning"].includes(entry.level))
                note(`console ${entry.level}: ${entry.text}${entry.url ? ` (${short(entry.url)})` : ""}`);
        },
        "Runtime.exceptionThrown": ({ exceptionDetails: thrown }) =>
            note(`uncaught: ${thrown.exception?.description?.split("\n")[0] ?? thrown.text}`),
        "Network.requestWillBeSent": ({ requestId, request }) => {
            urls.set(requestId, request.url);
            if (!request.url.startsWith(root) && !request.url.startsWith("data:"))
                note(`a request to elsewhere: ${short(request.url)}`);
        },
        "Network.responseReceived": ({ response }) => {
            if (response.status >= 400) note(`${short(response.url)} answers ${response.status}`);
        },
        "Network.loadingFailed": ({ requestId, errorText, blockedReason }) =>
            note(`a request that failed: ${short(urls.get(requestId))}, ${blockedReason ?? errorText}`),
        "Inspector.targetCrashed": () => note("the page crashed the browser"),
    };
    return (method, params) => on[method]?.(params);
}

/// Opens one page in one variant; returns what is wrong with it.
async function open(browser, site, page, variant, pictures) {
    const root = variant.disk ? site.roots.disk : site.roots.served;
    const found = [];
    const heard = watch(root, found);
    let loader = null;
    let idle;
    const silence = new Promise((resolve) => (idle = resolve));
    const seen = new Set();
    const tab = await browser.tab((method, params) => {
        heard(method, params);
        if (method === "Page.javascriptDialogOpening") {
            found.push(`a dialog: ${params.message}`);
            tab.send("Page.handleJavaScriptDialog", { accept: false });
        }
        // The browser's own word for "nothing was asked for in half a second". It may come before we know whose it is.
        if (method === "Page.lifecycleEvent" && params.name === "networkIdle") {
            seen.add(params.loaderId);
            if (params.loaderId === loader) idle();
        }
    });
    try {
        for (const domain of ["Page", "Runtime", "Log", "Network", "Inspector"]) await tab.send(`${domain}.enable`);
        await tab.send("Page.setLifecycleEventsEnabled", { enabled: true });
        // Each page has to find its files by itself.
        await tab.send("Network.setCacheDisabled", { cacheDisabled: true });
        await tab.send("Emulation.setDeviceMetricsOverride", {
            width: variant.width,
            height: 900,
            deviceScaleFactor: 1,
            mobile: false,
        });
        await tab.send("Emulation.setEmulatedMedia", {
            features: [{ name: "prefers-color-scheme", value: variant.theme }],
        });
        await tab.send("Emulation.setScriptExecutionDisabled", { value: variant.scripts === false });
        const { loaderId, errorText } = await tab.send("Page.navigate", { url: new URL(page, root).href });
        if (errorText) return [...found, `does not open: ${errorText}`];
        loader = loaderId;
        if (!seen.has(loaderId)) await within(silence, "the page to become quiet");
        // Timers run in the order in which they are due: what the page put off while it loaded has run after this one, also
        // on a busy machine.
        if (variant.scripts !== false)
            await tab.send("Runtime.evaluate", {
                expression: "new Promise((done) => setTimeout(done, 50))",
                awaitPromise: true,
            });
        const ask = JSON.stringify({ width: variant.width, structure: variant.structure === true });
        const { result, exceptionDetails } = await tab.send("Runtime.evaluate", {
            expression: `(${inspect})(${ask})`,
            returnByValue: true,
        });
        if (exceptionDetails)
            throw new Error(`inspect.mjs failed in ${page}: ${exceptionDetails.exception?.description}`);
        found.push(...result.value.faults, ...(await brokenLinks(site, root, result.value.links)));
        if (pictures && !variant.structure) await picture(tab, page, variant, pictures);
        return [...new Set(found)];
    } finally {
        await tab.close().catch(() => {});
    }
}

async function picture(tab, page, variant, folder) {
    const { cssContentSize } = await tab.send("Page.getLayoutMetrics");
    const clip = { x: 0, y: 0, width: variant.width, height: Math.ceil(cssContentSize.height), scale: 1 };
    const { data } = await tab.send("Page.captureScreenshot", { captureBeyondViewport: true, clip });
    const name = `${page.replace(/\.html$/, "").replaceAll("/", "_")}-${variant.theme}-${variant.width}.png`;
    await writeFile(join(folder, name), Buffer.from(data, "base64"));
}

/// Opens every page in every variant. Returns one entry per opening, in the order of the manifest.
async function look(browser, site, pictures = null) {
    const openings = site.pages.flatMap((page) =>
        site.variants.map((variant) => ({ page, variant: variant.name, how: variant, faults: [] })),
    );
    const left = [...openings];
    const work = async () => {
        for (let next = left.shift(); next; next = left.shift()) {
            // A page that never becomes quiet is a finding like others; a browser that ended fails on every page, and says so.
            next.faults = await open(browser, site, next.page, next.how, pictures).catch((error) => [error.message]);
        }
    };
    await Promise.all(Array.from({ length: TABS }, work));
    return openings;
}

function executable() {
    const named = process.env.HYDROMESH_CHROMIUM;
    const known = named ? [named] : ["chromium", "chromium-browser", "google-chrome"];
    const found = known.find((name) => spawnSync(name, ["--version"], { stdio: "ignore" }).status === 0);
    if (!found)
        throw new Error(`${named ?? "chromium"} does not run; scripts/services/chromium.sh installs it or says how`);
    return found;
}

function options(args) {
    const asked = { site: null, pages: [], screenshots: null, selfTest: false };
    const value = (flag) => args.shift() ?? usage(`${flag} needs a value`);
    while (args.length) {
        const arg = args.shift();
        if (arg === "--self-test") asked.selfTest = true;
        else if (arg === "--page") asked.pages.push(value(arg));
        else if (arg === "--screenshots") asked.screenshots = value(arg);
        else if (arg.startsWith("-") || asked.site) usage(`what is '${arg}'?`);
        else asked.site = arg;
    }
    if (!asked.site === !asked.selfTest) usage("a site is needed, or --self-test");
    return asked;
}

function usage(why) {
    throw new Error(`${why}\nusage: open_site.mjs SITE [--page PATH]... [--screenshots DIR] | --self-test`);
}

/// Looks at a folder or an address and returns the openings.
async function lookAt(browser, asked, bare) {
    const remote = /^https?:\/\//.test(asked.site);
    const folder = remote ? null : await realpath(asked.site).catch(() => null);
    if (!remote && !(folder && (await stat(folder)).isDirectory())) throw new Error(`there is no folder ${asked.site}`);
    const server = remote ? null : await serve(folder, bare);
    try {
        const site = await siteOf(server?.base ?? `${asked.site.replace(/\/+$/, "")}/`, folder);
        const missing = asked.pages.find((page) => !site.pages.includes(page));
        if (missing) throw new Error(`the site has no page ${missing}; it has:\n  ${site.pages.join("\n  ")}`);
        if (asked.pages.length) site.pages = asked.pages;
        if (asked.screenshots) await mkdir(asked.screenshots, { recursive: true });
        return await look(browser, site, asked.screenshots && resolve(asked.screenshots));
    } finally {
        server?.close();
    }
}

/// Prints the outcome; returns the exit code.
function tell(passed, failed) {
    console.log(`${passed} passed, ${failed} failed`);
    return failed === 0 ? 0 : 1;
}

async function main() {
    const asked = options(process.argv.slice(2));
    const browser = await Browser.start(executable());
    try {
        if (asked.selfTest) {
            const { selfTest } = await import("./open_site/self_test.mjs");
            console.log(`self-test in ${browser.product}`);
            const { passed, failed } = await selfTest((site, bare) => lookAt(browser, { ...asked, site }, bare));
            return tell(passed, failed);
        }
        const openings = await lookAt(browser, asked, undefined);
        const failing = openings.filter(({ faults }) => faults.length > 0);
        for (const { page, variant, faults } of failing) console.log(`${page} [${variant}]: ${faults.join("; ")}`);
        const pages = new Set(openings.map(({ page }) => page)).size;
        console.log(`${pages} pages, each ${openings.length / pages} times, in ${browser.product}`);
        return tell(openings.length - failing.length, failing.length);
    } finally {
        await browser.close();
    }
}

try {
    process.exitCode = await main();
} catch (error) {
    console.error(`open_site: ${error.message}`);
    process.exitCode = 2;
}
