/* Tables and lists. What is there is kept and changed in place: a button must not vanish under the pointer. */

import { age, bytes, milliseconds } from "./figures.js";

/** Fills a table's body: a row for each item, known by its key; cells(item) says {text, class} or {button, …data},
 *  share(item), if given, how much of all it is. */
export function rows(body, items, key, cells, share) {
  const focused = document.activeElement;
  const known = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  items.forEach((item, i) => {
    const name = key(item);
    const row = known.get(name) ?? document.createElement("tr");
    known.delete(name);
    row.dataset.key = name;
    cells(item).forEach((cell, column) => fill(row.cells[column] ?? row.insertCell(), cell));
    if (share) row.style.setProperty("--share", share(item).toFixed(3));
    if (body.rows[i] === row) return;
    body.insertBefore(row, body.rows[i] ?? null);
    if (row.contains(focused)) focused.focus({ preventScroll: true }); // moving it took that away
  });
  for (const row of known.values()) row.remove();
}

function fill(cell, { text, button, class: name = "", ...data }) {
  if (cell.className !== name) cell.className = name;
  let place = cell;
  if (button !== undefined) {
    place = cell.firstElementChild ?? cell.appendChild(document.createElement("button"));
    place.type = "button";
    Object.assign(place.dataset, data);
  }
  if (place.textContent !== (button ?? text)) place.textContent = button ?? text;
}

/** Fills a description list with what the API says of a client. */
export function details(into, client, now) {
  const since = (instant) => `${age(now - Date.parse(instant))} ago`;
  const entries = [
    ["User", client.user_id ?? "–"],
    ["Client", client.id],
    ["Address", client.remote_address],
    ["User agent", client.user_agent ?? "–"],
    ["Connected", `${since(client.connected_at)}, ${new Date(client.connected_at).toLocaleString()}`],
    ["Heard from", since(client.last_seen)],
    ["Round trip", client.rtt_ms === null ? "–" : milliseconds(client.rtt_ms)],
    ["Waiting", client.queued_bytes ? bytes(client.queued_bytes) : "nothing"],
    ["Channels", client.channels.join(", ") || "none"],
  ];
  if (into.children.length !== 2 * entries.length)
    into.replaceChildren(...entries.flatMap(([term]) => {
      const made = document.createElement("dt");
      made.textContent = term;
      return [made, document.createElement("dd")];
    }));
  entries.forEach(([, value], i) => {
    const place = into.children[2 * i + 1];
    if (place.textContent !== value) place.textContent = value;
  });
}
