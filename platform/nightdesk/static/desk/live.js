/* Keeps the part of a page that changes by itself up to date: `data-live` is the address of that part alone.

   It asks every two seconds, but spends no more than a tenth of the time waiting for answers, and nothing while nobody
   looks. Without it the page is as it was when it was opened. */

(() => {
    "use strict";

    const EVERY_MS = 2000;
    const SHARE = 10;
    const AFTER_TROUBLE_MS = 10000;

    const part = document.querySelector("[data-live]");
    if (!part || !("moving" in part.dataset)) return;

    const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

    const seen = () => new Promise((done) => {
        if (!document.hidden) return done();
        document.addEventListener("visibilitychange", () => done(), { once: true });
    });

    /* Who has to sign in again is redirected, which is no answer to this. */
    const ask = async () => {
        const answer = await fetch(part.dataset.live, { redirect: "error", cache: "no-store" });
        if (!answer.ok) throw new Error(`status ${answer.status}`);
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
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

    const follow = async () => {
        for (;;) {
            await seen();
            const begun = performance.now();
            let pause = EVERY_MS;
            try {
                const fresh = await ask();
                if (fresh.dataset.stage !== part.dataset.stage) {
                    /* The buttons, the files and the facts are others now. */
                    location.replace(location.pathname + location.search);
                    return;
                }
                if (!isSelecting()) replace(fresh);
                pause = Math.max(EVERY_MS, (performance.now() - begun) * SHARE);
            } catch {
                part.querySelector("[data-stale]")?.removeAttribute("hidden");
                pause = AFTER_TROUBLE_MS;
            }
            await sleep(pause);
        }
    };

    sleep(EVERY_MS).then(follow);
})();
