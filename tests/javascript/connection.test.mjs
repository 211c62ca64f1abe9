// What the page says about its connection, and when it tries again.
import assert from "node:assert/strict";
import { test } from "node:test";

import { delay } from "../../perfect_site/static/perfect/js/connection.js";
import { badge } from "../../perfect_site/static/perfect/js/standing.js";

const now = new Date(2026, 2, 3, 12, 0, 0);
const heard = (seconds) => new Date(now.getTime() - seconds * 1000);

test("a page is live while its socket is open and not quiet for 45 seconds", () => {
  assert.deepEqual(badge({ open: true, heard: null }, now), { live: true, text: "LIVE" });
  assert.deepEqual(badge({ open: true, heard: heard(44) }, now), { live: true, text: "LIVE" });
  assert.deepEqual(badge({ open: true, heard: heard(46) }, now), { live: false, text: "as of 11:59:14" });
});

test("a page without a socket says since when, but not at once", () => {
  assert.equal(badge({ open: false, heard: null }, now).text, "reconnecting");
  assert.equal(badge({ open: false, heard: heard(7) }, now).text, "reconnecting");
  assert.equal(badge({ open: false, heard: heard(9) }, now).text, "as of 11:59:51");
});

test("each try waits longer than the one before, up to 20 seconds, and never not at all", () => {
  assert.deepEqual(
    [0, 1, 2, 10].map((tries) => delay(tries, 1)),
    [700, 1200, 2200, 20200],
  );
  assert.equal(delay(10, 0), 200);
});
