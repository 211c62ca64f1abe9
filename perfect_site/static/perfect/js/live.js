// @ts-check
// The live part of a page. Numbers move what is drawn, fragments replace what changed shape, lines go to the log's
// end. Without a socket the same fragments are fetched every five seconds.
import * as connection from "./connection.js";
import { changed, redrawAll, replace } from "./fragments.js";
import * as log from "./log.js";
import { know, move, versionOf } from "./progress.js";
import { isOpen } from "./standing.js";

const POLL_MS = 5000;
const page = document.body.dataset;
const topics = (page.topics ?? "").split(" ").filter(Boolean);

/** @type {Record<string, (message: any) => void>} */
const deeds = {
  p: (numbers) => move(numbers, page.focus),
  html: replace,
  log: log.add,
  changed,
};

/**
 * What the page has of a topic: the number of its last line, or the version of its run.
 * @param {string} topic
 */
function since(topic) {
  return topic.endsWith(":log") ? log.lastLine() : versionOf(topic.replace(/^run:/, ""));
}

function poll() {
  if (isOpen() || document.hidden) return;
  redrawAll();
  log.poll();
}

if (page.focus) know(page.focus, Number(page.seq));
log.start();
if (topics.length) {
  setInterval(poll, POLL_MS);
  connection.start({
    since: () => Object.fromEntries(topics.map((topic) => [topic, since(topic)])),
    receive: (message) => deeds[message.t]?.(message),
  });
}
