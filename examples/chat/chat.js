// The chat's client: nothing but the browser's own WebSocket.

const $ = (id) => document.getElementById(id);

let name = "";
let socket = null;
let room = "";
let ownClient = "";      // the id of this connection: tells our own messages from the others'
let attempts = 0;        // connections that failed in a row
let retry = 0;           // timer of the next attempt
const members = new Map(); // user id -> name

// ---------------------------------------------------------------- connecting

async function connect() {
  showStatus("connecting", attempts ? "Reconnecting…" : "Connecting…");
  let ticket;
  try {
    const answer = await fetch("token", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ name }),
    });
    ticket = await answer.json();
    if (answer.status === 400) return logOut(ticket.message);
    if (!answer.ok) throw new Error(`status ${answer.status}`);
  } catch {
    return reconnect();
  }
  if (!name) return; // left meanwhile
  room = ticket.room;
  // Browsers cannot set headers: the token rides as a subprotocol, where no proxy logs it as part of an address.
  const current = socket = new WebSocket(`ws://${location.hostname}:${ticket.port}/ws`, ["heartwire.bearer", ticket.token]);
  current.onmessage = (event) => receive(JSON.parse(event.data));
  current.onclose = (event) => {
    if (socket !== current) return;
    socket = null;
    if (event.code === 4403) return logOut("You were asked to leave.");
    reconnect(event.reason);
  };
}

function reconnect(reason = "") {
  if (!name) return;
  // A server that goes away says when to come back; otherwise wait longer each time, and not all at once.
  const asked = /^reconnect_in=(\d+)$/.exec(reason);
  const wait = asked ? Number(asked[1]) : Math.min(10_000, 500 * 2 ** attempts) * (0.5 + Math.random() / 2);
  attempts += 1;
  showStatus("connecting", "Reconnecting…");
  clearTimeout(retry);
  retry = setTimeout(connect, wait);
}

function send(value) {
  if (socket?.readyState !== WebSocket.OPEN) return false;
  socket.send(JSON.stringify(value));
  return true;
}

// ---------------------------------------------------------------- what the server says

function receive(event) {
  const data = event.data ?? {};
  switch (event.event) {
    case "connected":
      ownClient = data.client_id;
      send({ action: "join_channel", channel: room });
      break;
    case "joined_channel":
      attempts = 0;
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
  const own = event.client_id === ownClient;
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
  attempts = 0;
  clearTimeout(retry);
  socket?.close(1000);
  socket = null;
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
  connect();
  $("text").focus();
});

$("leave").addEventListener("click", () => logOut());

$("compose").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (text && send({ action: "send_message", channel: room, data: { text } })) {
    $("text").value = "";
    grow();
  }
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
