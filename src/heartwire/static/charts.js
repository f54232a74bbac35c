/* Charts as SVG, drawn anew at each change in the pixels there are. */

import { WINDOW_MS, short } from "./figures.js";

const SVG = "http://www.w3.org/2000/svg";
const LEFT = 38, RIGHT = 6, TOP = 8, BOTTOM = 20;

function element(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function size(svg) {
  const { left, width, height } = svg.getBoundingClientRect();
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  return { left, width, height };
}

/** A round number that is not below, and whose half is a whole one: there are no half connections. */
export function ceiling(value) {
  if (value <= 2) return 2;
  const power = 10 ** Math.floor(Math.log10(value));
  const steps = [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((step) => step * power);
  return steps.find((step) => step >= value && step % 2 === 0);
}

function axis(width, height, top, format) {
  const bottom = height - BOTTOM;
  return [0, 0.5, 1].flatMap((part) => {
    const y = Math.round(bottom - part * (bottom - TOP)) + 0.5;
    return [
      element("line", { class: part ? "grid" : "base", x1: LEFT, x2: width - RIGHT, y1: y, y2: y }),
      element("text", { class: "tick", x: LEFT - 6, y: y + 3.5, "text-anchor": "end" }, format(part * top)),
    ];
  });
}

/** Draws lines over the last five minutes, and marks the sample under the pointer.
 *
 *  samples: [{at, …}] in milliseconds, ascending; series: [{key, name}], name being the class of the colour;
 *  pointer: where it is, in pixels of the page from the left, or undefined. Returns the marked sample, or none. */
export function lines(svg, samples, series, pointer) {
  const { left, width, height } = size(svg);
  if (!width) return;
  const now = samples.at(-1).at;
  const top = ceiling(Math.max(...series.flatMap(({ key }) => samples.map((sample) => sample[key] ?? 0))));
  const bottom = height - BOTTOM;
  const x = (at) => LEFT + (width - LEFT - RIGHT) * (1 - (now - at) / WINDOW_MS);
  const y = (value) => bottom - (value / top) * (bottom - TOP);
  const drawn = axis(width, height, top, short);
  for (const minutes of [5, 4, 3, 2, 1]) {
    const text = minutes === 5 ? "5 min" : String(minutes);
    const anchor = minutes === 5 ? "start" : "middle";
    const at = { class: "tick", x: x(now - minutes * 60_000), y: height - 4, "text-anchor": anchor };
    drawn.push(element("text", at, text));
  }
  drawn.push(element("text", { class: "tick", x: width - RIGHT, y: height - 4, "text-anchor": "end" }, "now"));
  for (const { key, name } of series) {
    for (const run of runs(samples, key)) {
      const path = run.map(({ at, [key]: value }) => `${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join("L");
      const first = x(run[0].at).toFixed(1), last = x(run.at(-1).at).toFixed(1);
      drawn.push(element("path", { class: `area ${name}`, d: `M${first} ${bottom}L${path}L${last} ${bottom}Z` }));
      drawn.push(element("path", { class: `line ${name}`, d: `M${path}` }));
    }
  }
  const marked = pointer === undefined ? undefined : nearest(samples, (sample) => left + x(sample.at), pointer);
  if (marked) {
    const middle = x(marked.at).toFixed(1);
    drawn.push(element("line", { class: "at", x1: middle, x2: middle, y1: TOP, y2: bottom }));
    for (const { key, name } of series)
      if (marked[key] != null) drawn.push(element("circle", { class: `dot ${name}`, cx: middle, cy: y(marked[key]), r: 4 }));
  }
  svg.replaceChildren(...drawn);
  return marked;
}

function nearest(samples, x, pointer) {
  const far = (sample) => Math.abs(x(sample) - pointer);
  return samples.reduce((best, sample) => (far(sample) < far(best) ? sample : best));
}

/* The samples between those that say nothing. */
function runs(samples, key) {
  const found = [[]];
  for (const sample of samples) {
    if (sample[key] == null) found.push([]);
    else found.at(-1).push(sample);
  }
  return found.filter((run) => run.length > 1);
}

/** Draws a histogram: bars [{label, value}], each named by its upper bound, and how values are written. */
export function histogram(svg, bars, format) {
  const { width, height } = size(svg);
  if (!width) return;
  const top = ceiling(Math.max(...bars.map(({ value }) => value)));
  const bottom = height - BOTTOM;
  const step = (width - LEFT - RIGHT) / bars.length;
  const drawn = axis(width, height, top, format);
  drawn.push(element("text", { class: "tick", x: LEFT, y: height - 4, "text-anchor": "start" }, "0 ms"));
  bars.forEach(({ label, value }, i) => {
    const high = (value / top) * (bottom - TOP);
    const left = LEFT + i * step;
    const bar = { class: "bar", x: left + 1, y: bottom - high, width: step - 2, height: high, rx: 2 };
    drawn.push(element("rect", bar));
    if (step < 40 && i % 2 === 0) return; // there is room for half of the bounds
    const edge = i === bars.length - 1 ? "end" : "middle";
    drawn.push(element("text", { class: "tick", x: left + step, y: height - 4, "text-anchor": edge }, label));
  });
  svg.replaceChildren(...drawn);
}
