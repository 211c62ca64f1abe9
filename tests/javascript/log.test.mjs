// Which lines of a log are shown.
import assert from "node:assert/strict";
import { test } from "node:test";

import { matches, plain, unread } from "../../perfect_site/static/perfect/js/log.js";

const line = (seq, level = "INFO", message = "read 10 rows") => [seq, "2026-03-03T12:00:00Z", level, "", message];

test("lines that are there already are left out", () => {
  assert.deepEqual(unread(2, [line(1), line(2), line(3)]), { fresh: [line(3)], missing: 0 });
  assert.deepEqual(unread(3, [line(1), line(2), line(3)]), { fresh: [], missing: 0 });
});

test("lines that are missing before the new ones are counted", () => {
  assert.equal(unread(2, [line(6), line(7)]).missing, 3);
});

test("a critical line is among the errors", () => {
  assert.ok(matches({ level: "error" }, line(1, "CRITICAL")));
  assert.ok(matches({ level: "error" }, line(1, "ERROR")));
  assert.ok(!matches({ level: "error" }, line(1, "WARNING")));
  assert.ok(matches({ level: "" }, line(1, "DEBUG")));
});

test("a text is found in any case, also across the pieces of a coloured message", () => {
  const coloured = [
    ["a31", "Read 1"],
    ["", "0 rows"],
  ];

  assert.equal(plain(coloured), "Read 10 rows");
  assert.ok(matches({ find: "READ 10" }, line(1, "INFO", coloured)));
  assert.ok(!matches({ find: "read 11" }, line(1, "INFO", coloured)));
});
