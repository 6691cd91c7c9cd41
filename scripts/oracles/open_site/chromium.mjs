// A headless Chromium and its tabs, spoken to over two pipes: no port to be found by others, no WebSocket, no package.

import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/// How long the browser may take for one answer or one page before the check gives up on it.
const PATIENCE_MS = 30_000;
/// Lines of the browser's own log that are shown when it ends early.
const LOG_LINES = 15;

const FLAGS = [
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-gpu",
    "--disable-sync",
    // Containers often have a small /dev/shm; the browser would end in the middle of a large page.
    "--disable-dev-shm-usage",
    // Scroll bars would make the page narrower than the width that is asked for.
    "--hide-scrollbars",
    // Whatever a page or the browser itself asks for, nothing leaves this machine.
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE 127.0.0.2",
];

export class Browser {
    #child;
    #profile;
    #log = [];
    #answers = new Map();
    #listeners = new Map();
    #next = 1;
    #ended = null;

    /// Starts the browser. Fails when it does not answer.
    static async start(executable) {
        const browser = new Browser();
        browser.#profile = await mkdtemp(join(tmpdir(), "open-site-"));
        const flags = [...FLAGS, `--user-data-dir=${browser.#profile}`];
        // Chromium refuses its sandbox to root, and CI containers run as root; the pages are our own.
        if (process.getuid?.() === 0) flags.push("--no-sandbox");
        browser.#child = spawn(executable, [...flags, "about:blank"], {
            stdio: ["ignore", "ignore", "pipe", "pipe", "pipe"],
        });
        browser.#read();
        const { product } = await browser.send("Browser.getVersion");
        browser.product = product;
        return browser;
    }

    #read() {
        const child = this.#child;
        child.stderr.setEncoding("utf8").on("data", (text) => {
            this.#log = [...this.#log, ...text.split("\n").filter((line) => line.trim())].slice(-LOG_LINES);
        });
        const end = (why) => {
            this.#ended ??= new Error(why);
            for (const { reject } of this.#answers.values()) reject(this.#ended);
            this.#answers.clear();
        };
        child.on("error", (error) => end(`the browser does not start: ${error.message}`));
        child.on("exit", (code, signal) => {
            end([`the browser ended with ${signal ?? code}; its last words:`, ...this.#log].join("\n  "));
        });
        child.stdio[3].on("error", () => end("the browser closed its pipe"));
        let parts = [];
        child.stdio[4].on("data", (chunk) => {
            // Messages end with a zero byte, and a chunk may hold several of them or a part of one.
            for (let end = chunk.indexOf(0); end >= 0; end = chunk.indexOf(0)) {
                parts.push(chunk.subarray(0, end));
                this.#take(JSON.parse(Buffer.concat(parts).toString("utf8")));
                parts = [];
                chunk = chunk.subarray(end + 1);
            }
            parts.push(chunk);
        });
    }

    #take(message) {
        if (message.id === undefined) {
            this.#listeners.get(message.sessionId)?.(message.method, message.params);
            return;
        }
        const waiting = this.#answers.get(message.id);
        this.#answers.delete(message.id);
        if (message.error) waiting?.reject(new Error(`${waiting.method}: ${message.error.message}`));
        else waiting?.resolve(message.result);
    }

    /// Calls a method of the DevTools protocol and returns its result.
    async send(method, params = {}, sessionId = undefined) {
        if (this.#ended) throw this.#ended;
        const id = this.#next++;
        const answer = new Promise((resolve, reject) => this.#answers.set(id, { method, resolve, reject }));
        this.#child.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
        return within(answer, `an answer to ${method}`);
    }

    /// Opens an empty tab; `listener` gets every event of it.
    async tab(listener) {
        const { targetId } = await this.send("Target.createTarget", { url: "about:blank" });
        const { sessionId } = await this.send("Target.attachToTarget", { targetId, flatten: true });
        this.#listeners.set(sessionId, listener);
        return {
            send: (method, params) => this.send(method, params, sessionId),
            close: async () => {
                await this.send("Target.closeTarget", { targetId });
                this.#listeners.delete(sessionId);
            },
        };
    }

    async close() {
        const child = this.#child;
        const gone = new Promise((resolve) =>
            child.exitCode === null && child.signalCode === null ? child.once("exit", resolve) : resolve(),
        );
        await this.send("Browser.close").catch(() => child.kill());
        await within(gone, "the browser to end").catch(() => child.kill("SIGKILL"));
        // Its helpers may still be writing for a moment.
        await rm(this.#profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
    }
}

/// Waits for a promise, but not for ever.
export async function within(promise, what) {
    let timer;
    const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`waited ${PATIENCE_MS / 1000} s for ${what}`)), PATIENCE_MS);
    });
    try {
        return await Promise.race([promise, late]);
    } finally {
        clearTimeout(timer);
    }
}
