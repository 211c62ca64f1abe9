// @ts-check
// Durations and moments as texts. Pure: no page, no clock of its own.

/** @param {number} number */
const pad = (number) => String(number).padStart(2, "0");

/**
 * The time of day: "09:05:07".
 * @param {Date} moment
 */
export function clock(moment) {
  return `${pad(moment.getHours())}:${pad(moment.getMinutes())}:${pad(moment.getSeconds())}`;
}

/**
 * A rough duration: "4 s", "12 min", "3 h", "6 d".
 * @param {number} seconds
 */
export function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h`;
  return `${Math.floor(whole / 86400)} d`;
}

/**
 * A stopwatch: "0:58", "1:02:03".
 * @param {number} seconds
 */
export function stopwatch(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const minutes = Math.floor(whole / 60);
  if (whole < 3600) return `${minutes}:${pad(whole % 60)}`;
  return `${Math.floor(whole / 3600)}:${pad(minutes % 60)}:${pad(whole % 60)}`;
}

/**
 * What is left, between two estimates in seconds: "0:20–0:45", or one of them if they read alike.
 * @param {[number, number]} range
 */
export function range([low, high]) {
  const least = stopwatch(Math.round(low));
  const most = stopwatch(Math.round(high));
  return least === most ? most : `${least}–${most}`;
}

/**
 * How many seconds `later` is after `earlier`.
 * @param {Date} later
 * @param {Date} earlier
 */
const seconds = (later, earlier) => (later.getTime() - earlier.getTime()) / 1000;

/**
 * The day if it is not today, and the time: "09:05", "Tue 09:05", "3 Mar 09:05".
 * @param {Date} moment
 * @param {Date} now
 */
function day(moment, now) {
  const time = `${pad(moment.getHours())}:${pad(moment.getMinutes())}`;
  if (Math.abs(seconds(moment, now)) > 6 * 86400) {
    return `${moment.toLocaleDateString("en-GB", { day: "numeric", month: "short" })} ${time}`;
  }
  if (moment.getDate() !== now.getDate()) return `${moment.toLocaleDateString("en-GB", { weekday: "short" })} ${time}`;
  return time;
}

/**
 * @param {Date} moment
 * @param {Date} now
 */
function until(moment, now) {
  const left = seconds(moment, now);
  if (left > 0) return `in ${span(left)}`;
  return left > -60 ? "now" : `due ${span(-left)} ago`;
}

/**
 * How `<time data-f="…">` says its moment.
 * @type {Record<string, (moment: Date, now: Date) => string>}
 */
export const forms = {
  clock: (moment) => `${clock(moment)}.${String(moment.getMilliseconds()).padStart(3, "0")}`,
  stamp: (moment) => `${moment.getFullYear()}-${pad(moment.getMonth() + 1)}-${pad(moment.getDate())} ${clock(moment)}`,
  day,
  age: (moment, now) => span(seconds(now, moment)),
  ago: (moment, now) => (seconds(now, moment) < 2 ? "now" : `${span(seconds(now, moment))} ago`),
  until,
  since: (moment, now) => stopwatch(seconds(now, moment)),
};

/** The forms whose text changes while nothing happens. */
export const moving = new Set(["age", "ago", "until", "since"]);
