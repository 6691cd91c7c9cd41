// What is looked at inside a page. The function runs in the browser, so it must not use anything from outside of itself.

/// Returns what is wrong with the page as it is laid out now, and where its links go.
///
/// `ask` is `{width, structure}`: the width in pixels that it is shown at, and whether to look at its structure too,
/// which is the same at every width and in every theme.
export function inspect(ask) {
    const faults = [];
    const quote = (text) => JSON.stringify(text.trim().replace(/\s+/g, " ").slice(0, 60));
    const name = (element) => {
        const id = element.id ? `#${element.id}` : "";
        const classes = [...element.classList].map((one) => `.${one}`).join("");
        const text = element.textContent.trim();
        return `<${element.localName}${id}${classes}>${text ? ` ${quote(text)}` : ""}`;
    };
    // Many times the same fault is one fault with examples.
    const report = (what, elements) => {
        if (elements.length === 0) return;
        const more = elements.length > 3 ? ` and ${elements.length - 3} more` : "";
        faults.push(`${what}: ${elements.slice(0, 3).map(name).join(", ")}${more}`);
    };
    const all = (selector) => [...document.querySelectorAll(selector)];
    const style = (element) => getComputedStyle(element);

    const main = all("main");
    if (main.length !== 1) faults.push(`${main.length} main elements, not one`);
    else if (!main[0].innerText.trim()) faults.push("the main content is empty");

    // Width. A table that scrolls in its own box is fine, a page that scrolls sideways is not, and neither is text that
    // a box hides.
    const page = document.documentElement;
    const sideways = (element) => style(element).overflowX;
    // What sticks out of `box`, innermost first, leaving out what a box in between takes care of.
    const sticksOut = (box, edge) => {
        const wide = [...box.querySelectorAll("*")].filter((element) => {
            if (element.getBoundingClientRect().right <= edge + 0.5) return false;
            for (let inner = element.parentElement; inner && inner !== box; inner = inner.parentElement)
                if (sideways(inner) !== "visible") return false;
            return true;
        });
        const inner = wide.filter((element) => !wide.some((other) => other !== element && element.contains(other)));
        return inner.length ? inner : [box];
    };
    if (page.scrollWidth > ask.width) {
        report(
            `the page is ${page.scrollWidth} px wide at a width of ${ask.width} px`,
            sticksOut(document.body, ask.width),
        );
    }
    const boxes = all("body *").filter(
        (element) =>
            element instanceof HTMLElement && element.clientWidth > 1 && element.scrollWidth > element.clientWidth + 1,
    );
    for (const box of boxes.filter((box) => ["hidden", "clip"].includes(sideways(box)))) {
        report(
            `cut off at the right edge of ${name(box).split(" ")[0]}`,
            sticksOut(box, box.getBoundingClientRect().right),
        );
    }
    report(
        "scrolls sideways but cannot be reached with the keyboard",
        boxes.filter(
            (box) =>
                ["auto", "scroll"].includes(sideways(box)) &&
                box.tabIndex < 0 &&
                !box.querySelector("a[href], [tabindex='0']"),
        ),
    );

    // Contrast, WCAG 2: 4.5 to 1, and 3 to 1 for large text.
    const colour = (text) => {
        const parts = /^rgba?\(([^)]*)\)$/
            .exec(text)?.[1]
            .split(/[\s,/]+/)
            .map(Number);
        return parts && [...parts.slice(0, 3), parts[3] ?? 1];
    };
    const over = ([r, g, b, alpha], below) => [r, g, b].map((part, i) => part * alpha + below[i] * (1 - alpha));
    const luminance = (rgb) => {
        const [r, g, b] = rgb
            .map((part) => part / 255)
            .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const canvas =
        matchMedia("(prefers-color-scheme: dark)").matches && style(page).colorScheme.includes("dark")
            ? [18, 18, 18]
            : [255, 255, 255];
    const behind = (element) => {
        const layers = [];
        for (let box = element; box; box = box.parentElement) {
            // Text in a picture stands on the box that is drawn before it.
            const drawn =
                box instanceof SVGElement
                    ? [...box.children].find((child) => child.localName === "rect" && child !== element)
                    : null;
            const fill = drawn && colour(style(drawn).fill);
            const layer = fill ?? colour(style(box).backgroundColor);
            if (layer) layers.push(layer);
            if (layer?.[3] === 1) break;
        }
        return layers.reverse().reduce((below, layer) => over(layer, below), canvas);
    };
    const faint = new Map();
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const text = texts.currentNode;
        const element = text.parentElement;
        if (!text.data.trim() || ["script", "style", "title", "desc", "noscript"].includes(element.localName)) continue;
        const range = document.createRange();
        range.selectNodeContents(text);
        const box = range.getBoundingClientRect();
        const look = style(element);
        const hidden = box.width <= 1 || box.height <= 1 || look.visibility !== "visible" || element.closest(".sr");
        if (hidden) continue;
        const ink = colour(element instanceof SVGElement ? look.fill : look.color);
        if (!ink) {
            report(`a colour that cannot be judged, ${look.color}`, [element]);
            continue;
        }
        for (let box = element; box; box = box.parentElement) ink[3] *= Number(style(box).opacity);
        const ground = behind(element);
        const [high, low] = [luminance(over(ink, ground)), luminance(ground)].sort((a, b) => b - a);
        const ratio = (high + 0.05) / (low + 0.05);
        const size = parseFloat(look.fontSize);
        const needed = size >= 24 || (size >= 18.66 && Number(look.fontWeight) >= 700) ? 3 : 4.5;
        if (ratio < needed) {
            const what = `contrast ${ratio.toFixed(2)} of ${ink.slice(0, 3)} on ${ground.map(Math.round)}, ${needed} is needed`;
            faint.set(what, [...(faint.get(what) ?? []), element]);
        }
    }
    for (const [what, elements] of faint) report(what, elements);

    report(
        "a picture that does not load",
        all("img").filter((picture) => !picture.complete || picture.naturalWidth === 0),
    );
    if (!ask.structure) return { faults, links: [] };

    if (document.compatMode !== "CSS1Compat") faults.push("no doctype: the browser falls back to quirks mode");
    if (!document.title.trim()) faults.push("no title");
    if (!page.lang) faults.push("no language on <html>");
    if (all("h1").length !== 1) faults.push(`${all("h1").length} h1 elements, not one`);
    const ids = all("[id]").map((element) => element.id);
    const twice = [...new Set(ids.filter((id, i) => ids.indexOf(id) !== i))];
    if (twice.length) faults.push(`ids that occur twice: ${twice.join(", ")}`);
    for (const attribute of ["aria-labelledby", "aria-describedby", "aria-controls"]) {
        report(
            `${attribute} names an id that is not there`,
            all(`[${attribute}]`).filter((element) =>
                element
                    .getAttribute(attribute)
                    .split(/\s+/)
                    .some((id) => !document.getElementById(id)),
            ),
        );
    }
    report("an image without alt", all("img:not([alt])"));
    const named = (element) =>
        element.getAttribute("aria-label")?.trim() ||
        element.hasAttribute("aria-labelledby") ||
        [...element.children].some((child) => child.localName === "title" && child.textContent.trim());
    report(
        "a picture (svg) without role and name, and not hidden from screen readers",
        all("svg").filter(
            (svg) =>
                !svg.closest('[aria-hidden="true"]') &&
                !svg.parentElement.closest("svg") &&
                !(svg.hasAttribute("role") && named(svg)),
        ),
    );
    report(
        "a link or button without a name",
        all("a[href], button").filter(
            (link) =>
                !link.textContent.trim() &&
                !link.getAttribute("aria-label")?.trim() &&
                ![...link.querySelectorAll("img")].some((picture) => picture.alt.trim()),
        ),
    );
    const links = all('a[href], area[href], link[href]:not([href^="data:"])').map((link) => {
        const raw = link.getAttribute("href");
        let url = null;
        try {
            url = new URL(raw, document.baseURI).href;
        } catch {
            faults.push(`a link that is no address: ${quote(raw)}`);
        }
        return { raw, url };
    });
    return { faults, links: links.filter((link) => link.url) };
}
