// How a run's numbers become what is shown.
import assert from "node:assert/strict";
import { test } from "node:test";

import { iconOf, know, risen, sorts, titleOf, versionOf } from "../../perfect_site/static/perfect/js/progress.js";

test("a percent that is shown never falls", () => {
  assert.equal(risen(40, 41.5), 41.5);
  assert.equal(risen(41.5, 40), 41.5);
});

test("the page knows the version of each run that it shows, and 0 for the others", () => {
  know("a", 7);
  know("a", 9);

  assert.equal(versionOf("a"), 9);
  assert.equal(versionOf("b"), 0);
});

test("lines that are neither warnings nor errors are infos", () => {
  assert.deepEqual(sorts([10, 3, 2]), { all: 10, info: 5, warning: 3, error: 2 });
});

test("the title says the percent of a run that goes on, and the state of another one", () => {
  assert.equal(titleOf({ state: "RUNNING", pct: 41.9, name: "Sales" }), "41 % · Sales");
  assert.equal(titleOf({ state: "PAUSED", pct: 41.9, name: "Sales" }), "41 % · Sales");
  assert.equal(titleOf({ state: "COMPLETED", pct: 100, name: "Sales" }), "Completed · Sales");
});

test("the icon is a ring as long as the percent, and whole in the state's colour at the end", () => {
  const ring = (run) => decodeURIComponent(iconOf(run).replace("data:image/svg+xml,", ""));

  assert.match(ring({ state: "RUNNING", pct: 41.9 }), /stroke="#25e3ff" pathLength="100" stroke-dasharray="41.9 200"/);
  assert.match(ring({ state: "FAILED", pct: 41.9 }), /stroke="#ff5d73" pathLength="100" stroke-dasharray="100 200"/);
});
