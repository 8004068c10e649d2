/* Refreshes the part of a page that has `data-live`, the URL of that part alone.

   Every two seconds, but with pauses of at least ten times the response time, and not while the page is hidden.
   Without this script the page shows the state of when it was opened. */

(() => {
    "use strict";

    const EVERY_MS = 2000;
    const PAUSE_FACTOR = 10;
    const AFTER_ERROR_MS = 10000;

    const part = document.querySelector("[data-live]");
    if (!part || !("moving" in part.dataset)) return;

    const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

    const untilVisible = () => new Promise((done) => {
        if (!document.hidden) return done();
        document.addEventListener("visibilitychange", () => done(), { once: true });
    });

    /* After the session has expired, the response is a redirect to the login page: an error here. */
    const load = async () => {
        const response = await fetch(part.dataset.live, { redirect: "error", cache: "no-store" });
        if (!response.ok) throw new Error(`status ${response.status}`);
        const page = new DOMParser().parseFromString(await response.text(), "text/html");
        return document.importNode(page.querySelector("[data-live]"), true);
    };

    const isSelecting = () => {
        const selection = getSelection();
        return selection !== null && !selection.isCollapsed && part.contains(selection.anchorNode);
    };

    const replace = (fresh) => {
        const focused = part.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
        part.replaceChildren(...fresh.childNodes);
        if (focused) [...part.querySelectorAll("a")].find((link) => link.getAttribute("href") === focused)?.focus();
    };

    const refresh = async () => {
        for (;;) {
            await untilVisible();
            const started = performance.now();
            let pause = EVERY_MS;
            try {
                const fresh = await load();
                if (fresh.dataset.stage !== part.dataset.stage) {
                    /* The rest of the page has changed too: buttons, files, facts. */
                    location.replace(location.pathname + location.search);
                    return;
                }
                if (!isSelecting()) replace(fresh);
                pause = Math.max(EVERY_MS, (performance.now() - started) * PAUSE_FACTOR);
            } catch {
                part.querySelector("[data-stale]")?.removeAttribute("hidden");
                pause = AFTER_ERROR_MS;
            }
            await sleep(pause);
        }
    };

    sleep(EVERY_MS).then(refresh);
})();
