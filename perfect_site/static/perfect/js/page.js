// @ts-check
// What every page does. No state but the theme.
import * as controls from "./controls.js";
import { $ } from "./dom.js";
import * as keys from "./keys.js";
import * as requests from "./requests.js";
import * as times from "./times.js";
import { fadeAll } from "./toasts.js";

times.start();
requests.start();
controls.start();
keys.start();
fadeAll();
$(".top nav [aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" });
