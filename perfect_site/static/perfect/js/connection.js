// @ts-check
// One socket a page. Every message can be lost: on each connection the page says what it has and gets what it missed.
import { hear, isOpen, setOpen, show, silence } from "./standing.js";
import { follow } from "./times.js";

/**
 * @typedef {{ t: string, [name: string]: any }} Message
 * @typedef {{ n: number, at: string, m: Message[] }} Frame a number to acknowledge, the server's clock, messages
 * @typedef {{ since: () => Record<string, number>, receive: (message: Message) => void }} Reader
 *   what the page has of each topic, and what it does with a message
 */

const DEAD_MS = 60_000; // a socket that is silent for so long is closed and opened again
const SIGNED_OUT = 4401;
const FORBIDDEN = 4403;

/** @type {WebSocket | null} */
let socket = null;
let tries = 0;

/**
 * Milliseconds until the next try: random, so that not all pages come at once, and longer with each try.
 * @param {number} tries
 * @param {number} chance from 0 to 1
 */
export function delay(tries, chance) {
  return chance * Math.min(20_000, 500 * 2 ** tries) + 200;
}

/**
 * Connect, and connect again for as long as the page is there.
 * @param {Reader} reader
 */
export function start(reader) {
  document.addEventListener("visibilitychange", () => send({ hidden: document.hidden }));
  addEventListener("pagehide", hangUp);
  addEventListener("pageshow", (event) => {
    if (event.persisted) connect(reader);
  });
  setInterval(watch, 2000);
  show();
  connect(reader);
}

/** @param {Reader} reader */
function connect(reader) {
  if (socket && socket.readyState < WebSocket.CLOSING) return;
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/ws/live/`);
  socket.onopen = () => {
    setOpen(true);
    send({ sub: reader.since() });
    if (document.hidden) send({ hidden: true });
  };
  socket.onmessage = (event) => take(JSON.parse(event.data), reader);
  socket.onclose = (event) => {
    setOpen(false);
    show();
    if (event.code === SIGNED_OUT) location.reload();
    else if (event.code !== FORBIDDEN) setTimeout(() => connect(reader), delay(tries++, Math.random()));
  };
}

/**
 * @param {Frame} frame
 * @param {Reader} reader
 */
function take(frame, reader) {
  tries = 0;
  hear();
  follow(frame.at);
  for (const message of frame.m) {
    try {
      reader.receive(message);
    } catch (wrong) {
      console.error(wrong);
    }
  }
  send({ ack: frame.n });
}

/** @param {object} message */
function send(message) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}

function watch() {
  show();
  if (isOpen() && silence() > DEAD_MS) socket?.close();
}

/** A page that may come back out of the browser's memory keeps no socket. */
function hangUp() {
  if (!socket) return;
  socket.onclose = null;
  socket.close();
  setOpen(false);
}
