// Proves that the check can fail: a site with one fault a page, made on the fly, and what has to be said of each.

import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

const SERVED = ["light, 1280 px", "dark, 1280 px", "light, 320 px", "dark, 320 px"];
const DARK = ["dark, 1280 px", "dark, 320 px"];
const ALL = [...SERVED, "without JavaScript", "from disk"];
const SCRIPTED = [...SERVED, "from disk"];
const STRUCTURE = ["without JavaScript", "from disk"];

// Without an icon of its own the browser asks for /favicon.ico, once, in whatever page comes first.
const html = (body, head = "") =>
    `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>A page</title><link rel="icon" href="data:,">${head}</head><body><main id="content"><h1>A page</h1>${body}</main></body></html>`;

/// Pages by path: what is in them, what has to be found, and where. What lies in `bare/` is served without the security
/// headers, which would keep scripts and styles of the page from running.
const PAGES = {
    "index.html": {
        body: html(
            `<p>Fine: <a href="index.html#content">here</a>, <a href="https://example.org/">elsewhere</a>, <a href="folder/index.html">below</a>.</p>
             <img src="dot.svg" alt="A dot"><svg role="img" aria-label="A line" width="9" height="9"><path d="M0 4h9" stroke="#000"/></svg>
             <div class="scroll" tabindex="0"><p class="wide">A wide table that scrolls in its own box.</p></div>`,
            '<link rel="stylesheet" href="style.css">',
        ),
        found: /^$/,
        where: [],
    },
    "folder/index.html": { body: html("<p>Fine as well.</p>"), found: /^$/, where: [] },
    "bare/console.html": {
        body: html('<script>console.error("oh", "no")</script>'),
        found: /^console error: oh no$/,
        where: SCRIPTED,
    },
    "bare/dark.html": {
        body: html('<script>if (matchMedia("(prefers-color-scheme: dark)").matches) console.warn("dark")</script>'),
        found: /^console warning: dark$/,
        where: DARK,
    },
    "bare/throws.html": {
        body: html("<script>setTimeout(() => { throw new Error('late') }, 20)</script>"),
        found: /^uncaught: Error: late$/,
        where: SCRIPTED,
    },
    "bare/dialog.html": { body: html('<script>alert("hello")</script>'), found: /^a dialog: hello$/, where: SCRIPTED },
    "policy.html": {
        body: html('<p style="margin:0">Styled in place.</p>'),
        found: /^console error: .*Content Security Policy/,
        where: [...SERVED, "without JavaScript"],
    },
    "style.html": {
        body: html("<p>Unstyled.</p>", '<link rel="stylesheet" href="gone.css">'),
        found: /gone\.css/,
        where: ALL,
    },
    "bare/elsewhere.html": {
        body: html('<img src="http://127.0.0.2:9/x.png" alt="x">'),
        found: /a request to elsewhere: http:\/\/127\.0\.0\.2:9\/x\.png/,
        where: ALL,
    },
    "link.html": {
        body: html('<a href="gone.html">gone</a>'),
        found: /^a link to what is not there: gone\.html$/,
        where: STRUCTURE,
    },
    "anchor.html": {
        body: html('<a href="index.html#gone">gone</a>'),
        found: /^a link to an anchor that is not there: index\.html#gone$/,
        where: STRUCTURE,
    },
    "disk.html": {
        body: html('<a href="folder/">only a server knows</a>'),
        found: /^a link to what is not there: folder\/$/,
        where: ["from disk"],
    },
    "script.html": {
        body: html('<a href="javascript:void 0">do</a>'),
        found: /^a link of an odd kind: javascript:/,
        where: STRUCTURE,
    },
    "bare/wide.html": {
        body: html('<p style="width:2000px">Wide.</p>'),
        found: /^the page is \d+ px wide at a width of \d+ px: <p> "Wide\."$/,
        where: ALL,
    },
    "bare/narrow.html": {
        body: html('<p style="width:500px">Too wide for a phone.</p>'),
        found: /^the page is 5\d\d px wide at a width of 320 px/,
        where: ["light, 320 px", "dark, 320 px"],
    },
    "bare/cut.html": {
        body: html('<div style="overflow:hidden"><p style="width:2000px">Cut.</p></div>'),
        found: /^cut off at the right edge of <div>: <p> "Cut\."$/,
        where: ALL,
    },
    "bare/reach.html": {
        body: html('<div style="overflow-x:auto"><p style="width:2000px">Scrolls.</p></div>'),
        found: /^scrolls sideways but cannot be reached with the keyboard: <div>/,
        where: ALL,
    },
    "bare/faint.html": {
        body: html(
            "<p>Readable by day.</p>",
            "<style>html{color-scheme:light dark}@media(prefers-color-scheme:dark){p{color:#444}}</style>",
        ),
        found: /^contrast 1\.\d\d of 68,68,68 on 18,18,18, 4\.5 is needed: <p>/,
        where: DARK,
    },
    "alt.html": { body: html('<img src="dot.svg">'), found: /^an image without alt: <img>$/, where: STRUCTURE },
    "picture.html": {
        body: html('<img src="broken.svg" alt="broken">'),
        found: /^a picture that does not load: <img>$/,
        where: ALL,
    },
    "svg.html": {
        body: html('<svg width="9" height="9"><path d="M0 4h9"/></svg>'),
        found: /^a picture \(svg\) without role and name/,
        where: STRUCTURE,
    },
    "ids.html": { body: html('<p id="a">1</p><p id="a">2</p>'), found: /^ids that occur twice: a$/, where: STRUCTURE },
    "name.html": {
        body: html('<a href="index.html"></a>'),
        found: /^a link or button without a name: <a>$/,
        where: STRUCTURE,
    },
    "bare/empty.html": {
        body: '<!doctype html><html lang="en"><title>Empty</title><link rel="icon" href="data:,"><main></main><script>document.querySelector("main").innerHTML = "<h1>Full</h1>"</script>',
        found: /^the main content is empty; 0 h1 elements, not one$/,
        where: ["without JavaScript"],
    },
    "quirks.html": {
        body: html("<p>Old.</p>").replace("<!doctype html>", ""),
        found: /^no doctype: /,
        where: STRUCTURE,
    },
};

const FILES = {
    "style.css": ".scroll{overflow-x:auto}.wide{width:2000px}",
    "dot.svg": '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><circle cx="4" cy="4" r="4"/></svg>',
    "broken.svg": "<svg",
};

/// Writes the site, has it looked at by `lookAt(folder, bare)`, and compares; returns how many pages were judged right.
export async function selfTest(lookAt) {
    const folder = await mkdtemp(join(tmpdir(), "open-site-faults-"));
    try {
        const files = {
            ...FILES,
            ...Object.fromEntries(Object.entries(PAGES).map(([path, { body }]) => [path, body])),
        };
        files["manifest.json"] = JSON.stringify({
            files: Object.fromEntries(Object.keys(PAGES).map((path) => [path, {}])),
        });
        for (const [path, text] of Object.entries(files)) {
            await mkdir(dirname(join(folder, path)), { recursive: true });
            await writeFile(join(folder, path), text);
        }
        const openings = await lookAt(folder, (path) => path.startsWith("/bare/"));
        let failed = 0;
        for (const [path, { found, where }] of Object.entries(PAGES)) {
            const wrong = openings.filter(
                ({ page, variant, faults }) =>
                    page === path && (where.includes(variant) ? !found.test(faults.join("; ")) : faults.length > 0),
            );
            for (const { variant, faults } of wrong) {
                const expected = where.includes(variant) ? String(found) : "nothing";
                console.log(`${path} [${variant}]: expected ${expected}, found: ${faults.join("; ") || "nothing"}`);
            }
            if (wrong.length) failed += 1;
        }
        return { passed: Object.keys(PAGES).length - failed, failed };
    } finally {
        await rm(folder, { recursive: true, force: true });
    }
}
