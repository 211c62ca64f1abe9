// @ts-check
// Runs before the first paint. The key and the attribute are Django admin's: pages and console share one choice.
"use strict";
{
  const choice = localStorage.getItem("theme") ?? "";
  document.documentElement.dataset.theme = ["dark", "light"].includes(choice) ? choice : "auto";
}
