/* The monitor page: what the feed says, shown; what the person wants, asked of the HTTP API. */

import { histogram, lines } from "./charts.js";
import { Feed } from "./feed.js";
import { History, age, bytes, count, milliseconds, rate } from "./figures.js";
import { details, rows } from "./lists.js";

const $ = (id) => document.getElementById(id);
const LOST_AFTER_MS = 1500; // a shorter loss of the feed is not worth a word

let history = new History();
let snapshot = null;
let list = "newest";
let found = [];
let shown = null; // { id } of the client in the dialog, a new one for each time it is asked for
let opened = null; // the one for which the dialog was opened
let lostTimer = 0;
let toastTimer = 0;

const feed = new Feed({
  onsnapshot(value) {
    snapshot = value;
    history.add(value);
    clearTimeout(lostTimer);
    lostTimer = 0;
    page("monitor");
    draw();
    if (shown) showClient(shown);
  },
  onlost() {
    lostTimer ||= setTimeout(() => say("reconnecting", "Server not reached, trying again"), LOST_AFTER_MS);
  },
  onrefused(error) {
    page("sign-in");
    text("refused", error.status === 401 ? "The server does not know this key." : error.message);
  },
});

// ------------------------------------------------------------------ drawing

function text(id, value) {
  const element = $(id);
  if (element.textContent !== value) element.textContent = value;
  element.hidden = value === "";
}

function page(id) {
  for (const name of ["sign-in", "monitor"]) $(name).hidden = name !== id;
  $("session").hidden = id === "sign-in";
  if (id === "sign-in") {
    text("server", "");
    text("status", "");
    document.title = "heartwire";
    $("key").focus();
  }
}

function say(kind, words) {
  $("status").className = kind;
  $("monitor").classList.toggle("stale", kind === "reconnecting");
  if (kind === "reconnecting") document.title = "not reached · heartwire";
  text("status", words);
}

function draw() {
  if (document.hidden || !snapshot || $("monitor").hidden) return;
  const now = history.samples.at(-1);
  const { totals } = snapshot;
  const up = Date.parse(snapshot.now) - Date.parse(snapshot.started_at);
  text("server", `${location.host} · ${snapshot.version} · up ${age(up)}`);
  if (snapshot.not_ready) say("draining", snapshot.not_ready);
  else say("live", "live");
  document.title = `${count(snapshot.clients)} · heartwire`;

  text("clients", count(snapshot.clients));
  text("users", `${count(snapshot.users)} ${snapshot.users === 1 ? "user" : "users"}`);
  text("opened", rate(now.opened));
  text("closed", `closed ${rate(now.closed)} /s`);
  text("messages-in", rate(now.messages_in));
  text("bytes-in", `${bytes(now.bytes_in)}/s`);
  text("messages-out", rate(now.messages_out));
  text("bytes-out", `${bytes(now.bytes_out)}/s`);
  text("queued", bytes(totals.queued_bytes));
  text("slow", `${count(history.grown((s) => s.totals.slow_consumers))} too slow, let go in ${history.span}`);
  const stalled = history.grown((s) => s.totals.stalled_ms);
  text("stalls", count(history.grown((s) => s.totals.stalls)));
  text("stalled", stalled ? `${milliseconds(stalled)} in ${history.span}` : `over 100 ms, in ${history.span}`);

  for (const id of Object.keys(CHARTS)) drawChart(id);
  drawRoundTrips();
  drawClients();
  drawChannels();
  drawEnds();
}

/* What is not known: the first rates, the figures of a channel's members. */
const known = (value, format) => (value == null ? "–" : format(value));

const CHARTS = {
  "chart-clients": { series: [{ key: "clients", name: "a" }], format: count },
  "chart-messages": { series: [{ key: "messages_out", name: "b" }, { key: "messages_in", name: "a" }], format: rate },
  "chart-opens": { series: [{ key: "closed", name: "c" }, { key: "opened", name: "a" }], format: rate },
};

/* Its legend says what is now, or was at the pointer. */
function drawChart(id) {
  const { series, format, pointer } = CHARTS[id];
  const now = history.samples.at(-1);
  if (!now) return;
  const marked = lines($(id), history.samples, series, pointer);
  const legend = $(id).parentElement;
  legend.querySelector(".when").textContent = marked && marked !== now ? `${age(now.at - marked.at)} ago` : "";
  for (const place of legend.querySelectorAll("[data-key]"))
    place.textContent = known((marked ?? now)[place.dataset.key], format);
}

for (const id of Object.keys(CHARTS)) {
  const point = (x) => {
    CHARTS[id].pointer = x;
    drawChart(id);
  };
  $(id).addEventListener("pointermove", ({ clientX }) => point(clientX));
  $(id).addEventListener("pointerleave", () => point(undefined));
}

function drawRoundTrips() {
  const [bounds, sinceStart] = snapshot.rtt_us;
  const recent = sinceStart.map((_, i) => history.grown((s) => s.rtt_us[1][i]));
  const sum = (counts) => counts.reduce((all, n) => all + n, 0);
  const counts = sum(recent) ? recent : sinceStart;
  const all = sum(counts);
  const labels = bounds.map((us) => (us < 1_000_000 ? `${us / 1000}` : `${us / 1_000_000} s`));
  const within = (part) => {
    let seen = 0;
    const i = counts.findIndex((n) => (seen += n) >= part * all);
    return i < bounds.length ? milliseconds(bounds[i] / 1000) : "longer";
  };
  const when = sum(recent) ? `last ${history.span}` : "since start";
  const half = `half within ${within(0.5)}, 99% within ${within(0.99)} · ${when}`;
  text("rtt-span", all ? half : "no ping answered yet");
  // The longest are left out where nothing was so long.
  const last = Math.max(8, counts.findLastIndex((n) => n > 0) + 1);
  const bars = [...labels, "∞"].map((label, i) => ({ label, value: all ? (100 * counts[i]) / all : 0 }));
  histogram($("chart-rtt"), bars.slice(0, last + 1), (part) => `${part}%`);
}

function drawClients() {
  const now = Date.parse(snapshot.now);
  const clients = list === "found" ? found : snapshot[list];
  rows($("client-rows"), clients, (client) => client.id, (client) => [
    { button: client.username ?? client.user_id ?? "anonymous", id: client.id },
    { class: "wide id", text: client.id },
    { class: "number wide", text: known(client.channels?.length ?? client.channels, count) },
    { class: "number", text: known(client.rtt_ms, milliseconds) },
    { class: "number", text: client.queued_bytes ? bytes(client.queued_bytes) : "–" },
    { class: "number", text: known(client.connected_at, (instant) => age(now - Date.parse(instant))) },
  ]);
  const nobody = { newest: "Nobody is connected.", slowest: "No client has answered a ping yet.", found: "Nobody found." };
  text("no-clients", clients.length ? "" : nobody[list]);
}

function drawChannels() {
  text("channel-count", snapshot.channels ? `of ${count(snapshot.channels)}` : "");
  rows($("channel-rows"), snapshot.largest_channels, (channel) => channel.name, (channel) => [
    { button: channel.name, channel: channel.name },
    { class: "quiet", text: channel.kind },
    { class: "number", text: count(channel.members) },
  ], (channel) => channel.members / snapshot.largest_channels[0].members);
  $("no-channels").hidden = snapshot.largest_channels.length > 0;
}

function drawEnds() {
  for (const head of document.querySelectorAll(".recent")) head.textContent = history.span;
  const tally = (id, none, entries) => {
    const sum = entries.reduce((all, [, n]) => all + n, 0);
    rows($(id), entries, ([name]) => name, ([name, all, recent]) => [
      { text: name.replaceAll("_", " ") },
      { class: "number", text: recent ? count(recent) : "–" },
      { class: "number", text: count(all) },
    ], ([, all]) => all / sum);
    $(none).hidden = entries.length > 0;
  };
  const counted = (field, prefix = "") =>
    Object.entries(snapshot[field])
      .filter(([, all]) => all > 0)
      .map(([name, all]) => [prefix + name, all, history.grown((s) => s[field][name])])
      .sort((a, b) => b[1] - a[1]);
  tally("cause-rows", "no-causes", counted("disconnects"));
  tally("refusal-rows", "no-refusals", [...counted("refusals"), ...counted("errors", "error ")]);
}

// ------------------------------------------------------------------ clients

function select(name) {
  list = name;
  for (const button of document.querySelectorAll("[data-list]"))
    button.setAttribute("aria-pressed", String(button.dataset.list === name));
  drawClients();
}

async function find(label, search) {
  try {
    found = await search();
    const tab = document.querySelector("[data-list=found]");
    tab.textContent = label;
    tab.hidden = false;
    select("found");
  } catch (error) {
    toast(error.message);
  }
}

async function byName(name) {
  const path = `api/clients?limit=100&user_id=${encodeURIComponent(name)}`;
  const { clients } = await feed.call("GET", path);
  if (clients.length) return clients;
  return feed.call("GET", `api/clients/${encodeURIComponent(name)}`).then((client) => [client], missing([]));
}

const missing = (instead) => (error) => {
  if (error.status !== 404) throw error;
  return instead;
};

async function showClient(wanted) {
  const { id } = wanted;
  const dialog = $("client-dialog");
  let client;
  try {
    client = await feed.call("GET", `api/clients/${encodeURIComponent(id)}`).catch(missing(null));
  } catch {
    return; // shown again with the next snapshot
  }
  if (shown !== wanted) return;
  $("kick").hidden = !client;
  if (client) {
    text("client-title", client.username ?? client.user_id ?? "Anonymous client");
    details($("client-details"), client, Date.parse(snapshot.now));
  } else if (!$("client-title").textContent.endsWith("has left")) {
    text("client-title", `${$("client-title").textContent || "The client"} has left`);
  }
  if (dialog.open) return;
  dialog.showModal();
  opened = wanted;
}

// ------------------------------------------------------------------ what the person does

function toast(words) {
  clearTimeout(toastTimer);
  text("toast", words);
  toastTimer = setTimeout(() => text("toast", ""), 5000);
}

/* Sends a form; what goes wrong is said in it. */
function onSubmit(form, send) {
  const complaint = form.querySelector(".bad");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (complaint) complaint.hidden = true;
    try {
      await send();
    } catch (error) {
      if (!complaint) return toast(error.message);
      complaint.textContent = error instanceof TypeError ? "The server is not reached." : error.message;
      complaint.hidden = false;
    }
  });
}

onSubmit($("sign-in").querySelector("form"), () => {
  const key = $("key").value.trim();
  $("key").value = "";
  history = new History();
  feed.start(key);
});

onSubmit($("search"), async () => {
  const field = $("search").querySelector("input");
  const name = field.value.trim();
  if (name) await find(`“${name}”`, () => byName(name));
});

onSubmit($("kick"), async () => {
  const { client_id: id } = await feed.call("POST", `api/clients/${encodeURIComponent(shown.id)}/kick`, {
    reason: $("kick-reason").value || null,
  });
  $("client-dialog").close();
  toast(`Kicked ${id}.`);
});

onSubmit($("broadcast"), async () => {
  const body = { broadcast_type: $("to").value, event: $("event").value };
  const data = $("data").value.trim();
  if (data) {
    try {
      body.data = JSON.parse(data);
    } catch (error) {
      throw new Error(`Data is not JSON: ${error.message}`);
    }
  }
  if (body.broadcast_type !== "global") body[{ channel: "channel", user: "user_id" }[body.broadcast_type]] = $("target").value;
  const { recipients } = await feed.call("POST", "api/broadcast", body);
  $("broadcast-dialog").close();
  toast(`Sent to ${count(recipients)} ${recipients === 1 ? "client" : "clients"}.`);
});

$("to").addEventListener("change", () => {
  $("target-field").hidden = $("to").value === "global";
  $("target").required = $("to").value !== "global";
  $("target-label").textContent = { global: "", channel: "Name", user: "User id" }[$("to").value];
});

$("open-broadcast").addEventListener("click", () => $("broadcast-dialog").showModal());

$("sign-out").addEventListener("click", () => {
  feed.forget();
  clearTimeout(lostTimer);
  snapshot = null;
  text("refused", "");
  page("sign-in");
});

document.addEventListener("click", ({ target }) => {
  const { list: name, id, channel } = target.dataset;
  if (name) select(name);
  if (id) showClient((shown = { id }));
  if (channel) {
    const path = `api/channels/${encodeURIComponent(channel)}/clients`;
    find(`in ${channel}`, async () => (await feed.call("GET", path)).clients);
  }
  if (target.matches("dialog .close")) target.closest("dialog").close();
});

for (const dialog of document.querySelectorAll("dialog"))
  dialog.addEventListener("close", () => {
    // It comes some time after the dialog has closed: another client may have been asked for, or be there.
    if (dialog.open) return;
    if (shown === opened) shown = null;
    for (const complaint of dialog.querySelectorAll(".bad")) complaint.hidden = true;
    $("kick-reason").value = "";
    $("client-title").textContent = "";
  });

document.addEventListener("visibilitychange", draw);
new ResizeObserver(draw).observe($("monitor"));

if (feed.key) feed.start();
else page("sign-in");
