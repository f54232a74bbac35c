/* The way to the server: calls of the HTTP API with the key, and the feed, opened by a ticket and opened again. */

const KEY = "heartwire.api-key";
const SILENCE_MS = 10_000; // the feed sends each second
const MOST_DELAY_MS = 5_000;

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export class Feed {
  #socket = null;
  #timer = 0;
  #turn = 0; // of signing in and out: what belongs to an earlier one is dropped
  #attempt = 0;

  /** onsnapshot(snapshot), onlost(), onrefused(error): the key does not do. */
  constructor({ onsnapshot, onlost, onrefused }) {
    Object.assign(this, { onsnapshot, onlost, onrefused });
  }

  get key() {
    return sessionStorage.getItem(KEY);
  }

  start(key = this.key) {
    this.stop();
    sessionStorage.setItem(KEY, key);
    this.#attempt = 0;
    this.#open(this.#turn);
  }

  stop() {
    this.#turn++;
    clearTimeout(this.#timer);
    this.#socket?.close();
    this.#socket = null;
  }

  forget() {
    this.stop();
    sessionStorage.removeItem(KEY);
  }

  /** Calls the API. Returns the answer's value; throws Refused, or TypeError if there is no server. */
  async call(method, path, body) {
    const headers = { Authorization: `Bearer ${this.key}` };
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const answer = await fetch(path, { method, headers, body: body && JSON.stringify(body), cache: "no-store" });
    const value = await answer.json().catch(() => null);
    if (!answer.ok) throw new Refused(answer.status, value?.message ?? `the server answered ${answer.status}`);
    return value;
  }

  async #open(turn) {
    try {
      const { ticket } = await this.call("POST", "api/monitor/ticket");
      if (turn !== this.#turn) return;
      const url = new URL("api/monitor", document.baseURI);
      url.protocol = url.protocol.replace("http", "ws");
      url.searchParams.set("ticket", ticket);
      const socket = (this.#socket = new WebSocket(url));
      socket.onmessage = ({ data }) => {
        if (turn !== this.#turn) return;
        this.#attempt = 0;
        this.#expect(socket);
        this.onsnapshot(JSON.parse(data));
      };
      socket.onclose = () => this.#again(turn, socket);
      this.#expect(socket);
    } catch (error) {
      if (turn !== this.#turn) return;
      if (error.status === 401 || error.status === 403) {
        this.forget();
        this.onrefused(error);
      } else this.#again(turn, this.#socket);
    }
  }

  /* A connection that has died may say nothing: its silence is taken for its end. */
  #expect(socket) {
    clearTimeout(this.#timer);
    const turn = this.#turn;
    this.#timer = setTimeout(() => this.#again(turn, socket), SILENCE_MS);
  }

  #again(turn, socket) {
    if (turn !== this.#turn || socket !== this.#socket) return;
    clearTimeout(this.#timer);
    this.#socket = null;
    socket?.close();
    this.onlost();
    const delay = Math.random() * Math.min(MOST_DELAY_MS, 500 * 2 ** this.#attempt++);
    this.#timer = setTimeout(() => this.#open(turn), delay);
  }
}
