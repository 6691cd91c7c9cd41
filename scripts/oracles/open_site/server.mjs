// Serves a site folder on loopback, as `hydromesh up` would: same types, same headers.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join } from "node:path";

const sources = new URL("../../../src/serve/", import.meta.url);

/// Reads from the product's own source what it sends with every answer, so that this copy cannot fall behind it.
async function promises() {
    const headers = await readFile(new URL("headers.rs", sources), "utf8");
    const policy = /const PAGE_POLICY: &str = "([^"]*)"/.exec(headers)?.[1].replace(/\\\n\s*/g, "");
    const list = /let fixed = \[\n([^\]]*)\]/.exec(headers)?.[1] ?? "";
    const fixed = {};
    const entry = /\((?:header::(\w+)|HeaderName::from_static\("([^"]+)"\)), (?:(PAGE_POLICY)|"([^"]*)")\)/g;
    for (const [, constant, name, isPolicy, value] of list.matchAll(entry)) {
        fixed[name ?? constant.toLowerCase().replaceAll("_", "-")] = isPolicy ? policy : value;
    }
    const site = await readFile(new URL("site.rs", sources), "utf8");
    const types = Object.fromEntries(
        [...(/const TYPES: [^=]* = \[\n([^\]]*)\]/.exec(site)?.[1].matchAll(/\("(\w+)", "([^"]+)"\)/g) ?? [])].map(
            ([, ending, type]) => [ending, type],
        ),
    );
    const lines = list.split("\n").filter((line) => line.trim()).length;
    if (!fixed["content-security-policy"] || Object.keys(fixed).length !== lines || !types.html) {
        throw new Error(
            "src/serve/headers.rs or site.rs is written in a way that scripts/oracles/open_site/server.mjs cannot read; mend it there",
        );
    }
    return { fixed, types };
}

/// Serves `folder` until `close` is called. Paths for which `bare` is true come without the security headers.
export async function serve(folder, bare = () => false) {
    const { fixed, types } = await promises();
    const server = createServer(async (request, response) => {
        const path = decodeURIComponent(new URL(request.url, "http://site").pathname);
        // Hidden files are not of the site, and nothing above the folder is.
        const inside = !path.split("/").some((part) => part.startsWith("."));
        // Without a slash a folder is not found here. `hydromesh up` would send the reader on, but no link should need that.
        const file = join(folder, path.endsWith("/") ? `${path}index.html` : path);
        const body = inside ? await readFile(file).catch(() => null) : null;
        const type = types[extname(file).slice(1)] ?? "application/octet-stream";
        response.writeHead(body ? 200 : 404, {
            ...(bare(path) ? {} : fixed),
            "content-type": body ? type : "text/plain; charset=utf-8",
            "cache-control": "no-cache",
        });
        response.end(request.method === "HEAD" ? "" : (body ?? "no such file"));
    });
    await new Promise((resolve, reject) => server.once("error", reject).listen(0, "127.0.0.1", resolve));
    return {
        base: `http://127.0.0.1:${server.address().port}/`,
        close: () => {
            server.close();
            server.closeAllConnections?.();
        },
    };
}
