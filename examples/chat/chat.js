// The chat's page. heartwire.js connects, reconnects and joins again; here is what the chat makes of it.

import { Heartwire } from "./heartwire.js";

const $ = (id) => document.getElementById(id);

let name = "";
let wire = null;
let room = "";
const members = new Map(); // user id -> name

// ---------------------------------------------------------------- connecting

async function connect() {
  showStatus("connecting", "Connecting…");
  const place = await (await fetch("room")).json();
  if (!name) return; // left meanwhile
  room = place.room;
  const mine = wire = new Heartwire(`ws://${location.hostname}:${place.port}/ws`, { token, maxDelay: 10_000 });
  wire.onstate = (state, { code }) => {
    if (mine !== wire) return;
    if (state === "waiting") showStatus("connecting", "Reconnecting…");
    if (state === "closed") logOut(code === 4403 ? "You were asked to leave." : `The server ended it (${code}).`);
  };
  wire.on("*", (event) => mine === wire && receive(event));
  wire.join(room).catch(() => {}); // comes again by itself; a refusal is shown as an error event
}

// Asked at the first connection, and whenever the last token may not do any more.
async function token() {
  const answer = await fetch("token", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ name }),
  });
  const { token, message } = await answer.json();
  if (answer.status === 400) logOut(message);
  if (!answer.ok) throw new Error(message);
  return token;
}

// ---------------------------------------------------------------- what the server says

function receive(event) {
  const data = event.data ?? {};
  switch (event.event) {
    case "joined_channel":
      members.clear();
      for (const member of data.members) members.set(member.user_id, member.username);
      showMembers();
      showStatus("open", "Connected");
      break;
    case "member_joined":
      members.set(data.user_id, data.username);
      showMembers();
      showNotice(`${data.username} joined`);
      break;
    case "member_left":
      members.delete(data.user_id);
      showMembers();
      showNotice(`${data.username} left`);
      break;
    case "message":
      if (typeof data.text === "string") showMessage(event, data.text);
      break;
    case "error":
      showNotice(data.message);
      break;
  }
}

// ---------------------------------------------------------------- the page

// Everything that comes from others goes into the page as text, never as markup.
function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function avatar(user) {
  const made = element("span", "avatar", Array.from(user)[0].toUpperCase());
  let hue = 0;
  for (const character of user) hue = (hue * 31 + character.codePointAt(0) * 137) % 360;
  made.style.setProperty("--hue", hue);
  made.setAttribute("aria-hidden", "true");
  return made;
}

function showStatus(state, text) {
  $("status").dataset.state = state;
  $("status").textContent = text;
  $("compose").inert = state !== "open";
}

function showMembers() {
  const sorted = [...members.values()].sort((a, b) => a.localeCompare(b));
  $("count").textContent = sorted.length;
  $("members").replaceChildren(...sorted.map((user) => {
    const item = element("li", "");
    item.append(avatar(user), element("span", "name", user));
    if (user === name) item.append(element("span", "you", "you"));
    return item;
  }));
}

function append(item) {
  const list = $("messages");
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 80;
  list.append(item);
  while (list.children.length > 500) list.firstChild.remove();
  if (atEnd || item.classList.contains("own")) list.scrollTop = list.scrollHeight;
}

function showNotice(text) {
  append(element("li", "notice", text));
}

function showMessage(event, text) {
  const own = event.client_id === wire.clientId;
  const time = new Date(event.timestamp);
  const last = $("messages").lastElementChild;
  const sameAuthor = last?.dataset.client === event.client_id && time - Number(last.dataset.time) < 120_000;
  const item = element("li", `message${own ? " own" : ""}${sameAuthor ? " more" : ""}`);
  item.dataset.client = event.client_id;
  item.dataset.time = time.getTime();
  const body = element("div", "body");
  if (!sameAuthor) {
    const head = element("div", "head");
    const clock = element("time", "", time.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
    clock.dateTime = event.timestamp;
    head.append(element("span", "author", own ? "You" : event.username), clock);
    body.append(head);
  }
  body.append(element("p", "bubble", text));
  if (!own) item.append(avatar(event.username));
  item.append(body);
  append(item);
}

function logOut(problem = "") {
  name = "";
  const ended = wire;
  wire = null;
  ended?.close();
  members.clear();
  $("messages").replaceChildren();
  $("problem").textContent = problem;
  $("chat").hidden = true;
  $("welcome").hidden = false;
  $("name").focus();
}

$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  name = $("name").value.trim();
  if (!name) return;
  $("problem").textContent = "";
  $("welcome").hidden = true;
  $("chat").hidden = false;
  connect().catch(() => logOut("The server is not reached."));
  $("text").focus();
});

$("leave").addEventListener("click", () => logOut());

$("compose").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text) return;
  $("text").value = "";
  grow();
  wire.send(room, { text }).catch(({ code }) => {
    if (code === "timeout" || code === "disconnected") showNotice(`Perhaps not sent: ${text}`);
  });
});

$("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("compose").requestSubmit();
});

function grow() {
  const field = $("text");
  field.style.height = "auto";
  field.style.height = `${Math.min(field.scrollHeight, 144)}px`;
}
$("text").addEventListener("input", grow);
