// How durations and moments read.
import assert from "node:assert/strict";
import { test } from "node:test";

import { clock, forms, moving, range, span, stopwatch } from "../../perfect_site/static/perfect/js/moments.js";

const now = new Date(2026, 2, 3, 12, 0, 0);
const before = (seconds) => new Date(now.getTime() - seconds * 1000);

test("a span is said in its largest unit", () => {
  const said = [-5, 0, 59.4, 59.6, 3599, 3600, 86399, 86400, 6 * 86400].map(span);

  assert.deepEqual(said, ["0 s", "0 s", "59 s", "1 min", "59 min", "1 h", "23 h", "1 d", "6 d"]);
});

test("a stopwatch never runs ahead and shows hours when there are some", () => {
  assert.deepEqual([-1, 0, 58.9, 61, 3599, 3723].map(stopwatch), ["0:00", "0:00", "0:58", "1:01", "59:59", "1:02:03"]);
});

test("two estimates that read alike are said once", () => {
  assert.equal(range([20, 45]), "0:20–0:45");
  assert.equal(range([19.6, 20.4]), "0:20");
});

test("a clock has two digits everywhere, and milliseconds in the log", () => {
  const moment = new Date(2026, 2, 3, 9, 5, 7, 8);

  assert.equal(clock(moment), "09:05:07");
  assert.equal(forms.clock(moment, now), "09:05:07.008");
  assert.equal(forms.stamp(moment, now), "2026-03-03 09:05:07");
});

test("a day is named when it is not today, and dated when it is far", () => {
  assert.equal(forms.day(before(3600), now), "11:00");
  assert.equal(forms.day(before(86400), now), "Mon 12:00");
  assert.equal(forms.day(before(8 * 86400), now), "23 Feb 12:00");
  assert.equal(forms.day(before(-8 * 86400), now), "11 Mar 12:00");
});

test("what is due is said with its distance, and as now for a minute", () => {
  const said = [-90, 0, 59, 60, 7200].map((seconds) => forms.until(before(seconds), now));

  assert.deepEqual(said, ["in 1 min", "now", "now", "due 1 min ago", "due 2 h ago"]);
});

test("what has just happened happened now", () => {
  assert.deepEqual(
    [0, 1.9, 2, 90].map((seconds) => forms.ago(before(seconds), now)),
    ["now", "now", "2 s ago", "1 min ago"],
  );
  assert.equal(forms.age(before(90), now), "1 min");
  assert.equal(forms.since(before(90), now), "1:30");
});

test("each form that moves is a form", () => {
  assert.deepEqual(
    [...moving].filter((name) => !(name in forms)),
    [],
  );
});
