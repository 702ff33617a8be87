// Numbers, times and addresses as people read them. Pure.

const STEPS = ["", "k", "M", "G", "T", "P"];

/** Three digits and a unit: 7, 999, 1.23k, 45.6M. A rate below ten keeps one decimal. null: a dash. */
export function count(number) {
  if (number === null || number === undefined || Number.isNaN(number)) return "–";
  let size = Math.abs(number), step = 0;
  while (size >= 999.5 && step < STEPS.length - 1) { size /= 1000; step += 1; }
  const digits = step === 0 ? (size < 10 && size % 1 >= 0.05 ? 1 : 0) : size < 10 ? 2 : size < 100 ? 1 : 0;
  return `${number < 0 ? "−" : ""}${size.toFixed(digits)}${STEPS[step]}`;
}

/** A rate: a dash while it is not known. */
export const rate = (number) => count(number);

/** All digits, in groups. */
export const whole = (number) => Number(number).toLocaleString("en-GB").replaceAll(",", " ");

export function percent(share) {
  if (share === null || share === undefined || Number.isNaN(share)) return "–";
  const per = share * 100;
  return `${per > 0 && per < 10 ? per.toFixed(1) : per.toFixed(0)} %`;
}

const UNITS = [[86400, "d"], [3600, "h"], [60, "m"], [1, "s"]];

/** A span in its two largest units: 45s, 59m 30s, 2h 5m, 3d 4h. */
export function span(seconds) {
  let left = Math.max(0, Math.floor(seconds));
  const parts = [];
  for (const [size, unit] of UNITS) {
    const number = Math.floor(left / size);
    left -= number * size;
    if (number || (unit === "s" && !parts.length)) parts.push(`${number}${unit}`);
    else if (parts.length) break;
  }
  return parts.slice(0, 2).join(" ");
}

/** Seconds since the epoch, from such a number or from RFC 3339. */
export const moment = (when) => (typeof when === "string" ? Date.parse(when) / 1000 : when);

/** The time of the day, in the reader's zone. */
export const clock = (when) => new Date(moment(when) * 1000).toLocaleTimeString("en-GB");

/** Address and port as one word: 192.0.2.1:80, [2001:db8::1]:80. */
export const endpoint = (address, port) =>
  port === null ? address : `${address.includes(":") ? `[${address}]` : address}:${port}`;
