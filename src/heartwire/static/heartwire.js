/* heartwire's browser client, protocol 1: docs/browser-client.md */

const DEFAULTS = {
  token: null, // () => string or Promise
  timeout: 10000, minDelay: 500, maxDelay: 30000, // ms
  final: [1000, 1002, 1003, 1007, 1008, 1009, 4403], // close codes to stay away after
};

// So what a listener throws disturbs nothing here.
const call = (listener, ...values) => queueMicrotask(() => listener(...values));

export class Heartwire {
  state = "connecting"; // "open", "waiting" for the next try, "closed" for good
  clientId = null;
  onstate = null; // (state, { code, reason, error }, milliseconds to the next try) => …

  #url; #options; #socket; #timer; #heard; #token; #attempt = 0; #lastId = 0;
  #listeners = new Set(); #channels = new Map(); #pending = new Map();

  constructor(url, options) {
    this.#url = url;
    this.#options = { ...DEFAULTS, ...options };
    queueMicrotask(() => this.#connect());
  }

  /** Calls listener(event) for events of that name, or "*". Returns what ends it. */
  on(name, listener) {
    const entry = { name, listener };
    this.#listeners.add(entry);
    return () => this.#listeners.delete(entry);
  }

  /** Joins, now and after each reconnection, until `leave` or a refusal. */
  join(channel, data) {
    this.#channels.set(channel, data);
    return this.action("join_channel", { channel, data });
  }

  leave(channel) {
    this.#channels.delete(channel);
    return this.action("leave_channel", { channel });
  }

  send(channel, data, event = "message") {
    return this.action("send_message", { channel, event, data });
  }

  /** Sends once open. Resolves with the answer's data; rejects with an Error whose `code` is the server's, or
   *  timeout, disconnected (it may have been done), closed. */
  async action(action, fields) {
    const id = ++this.#lastId;
    const entry = { ...Promise.withResolvers(), text: JSON.stringify({ ...fields, action, id }) };
    if (action === "join_channel") entry.join = fields.channel;
    entry.timer = setTimeout(() => this.#settle(id, "timeout"), this.#options.timeout);
    this.#pending.set(id, entry);
    if (this.state === "open") this.#transmit(entry);
    if (this.state === "closed") this.#settle(id, "closed");
    return entry.promise;
  }

  close(code = 1000, reason = "") {
    this.#socket?.close(code, reason);
    this.#socket = null;
    this.#change("closed", { code, reason });
  }

  async #connect() {
    this.#change("connecting");
    try {
      const { token, timeout } = this.#options;
      this.#token ||= await token?.();
      if (this.state === "closed") return;
      const bearer = this.#token ? ["heartwire.bearer", this.#token] : [];
      const socket = this.#socket = new WebSocket(this.#url, ["heartwire.v1", ...bearer]);
      socket.onmessage = ({ data }) => this.#socket === socket && this.#receive(JSON.parse(data) ?? {});
      socket.onclose = (event) => this.#socket === socket && this.#lost(event);
      this.#timer = setTimeout(() => this.#lost({}), timeout);
    } catch (error) {
      this.#lost({ error });
    }
  }

  #receive(event) {
    const { event: name, data, reply_to: id } = event;
    this.#heard = true;
    if (name === "connected") this.#open(data);
    if (name === "left_channel" && !id) this.#channels.delete(data.channel);
    if (name === "token_expiring") this.#renew().catch(() => {}); // 4410 will come
    if (id) this.#settle(id, name === "error" && data.code, data);
    for (const entry of this.#listeners)
      if (entry.name === name || entry.name === "*") call(entry.listener, event);
  }

  #open({ client_id, ping_interval_ms }) {
    const queued = [...this.#pending.values()];
    const joined = [...this.#channels].filter(([name]) => !queued.some(({ join }) => join === name));
    this.clientId = client_id;
    this.#change("open");
    // Scripts do not see the server's pings: ask after a silence, so that a dead network shows.
    this.#timer = setInterval(() => {
      if (!this.#heard) this.action("ping").catch(({ code }) => code === "timeout" && this.#lost({}));
      this.#heard = false;
      this.#attempt = 0; // it held
    }, ping_interval_ms);
    for (const [name, data] of joined) this.join(name, data).catch(() => {});
    for (const entry of queued) this.#transmit(entry);
  }

  async #renew() {
    this.#token = await this.#options.token();
    await this.action("authenticate", { token: this.#token });
  }

  #transmit(entry) {
    entry.sent = true;
    this.#socket.send(entry.text);
  }

  #settle(id, code, data) {
    const entry = this.#pending.get(id);
    if (!entry) return;
    this.#pending.delete(id);
    clearTimeout(entry.timer);
    if (!code) return entry.resolve(data);
    if (data && code !== "rate_limited") this.#channels.delete(entry.join);
    entry.reject(Object.assign(new Error(data?.message ?? code), { code }));
  }

  #lost(why) {
    if (this.state === "closed") return;
    const { code, reason } = why, { minDelay, maxDelay, final } = this.#options;
    this.#socket?.close();
    this.#socket = null;
    // A browser is not told why a handshake failed: the token may be the reason.
    if (this.state === "connecting" || code === 4401 || code === 4410) this.#token = "";
    if (code === 4429) this.#attempt += 4;
    for (const [id, { sent, join }] of this.#pending)
      if (sent && !join) this.#settle(id, "disconnected"); // a join is sent again
    if (final.includes(code)) return this.#change("closed", why);
    const told = Number(/reconnect_in=(\d+)/.exec(reason)?.[1] ?? 0);
    const most = told ? minDelay : Math.min(maxDelay, minDelay * 2 ** this.#attempt++);
    const delay = told + Math.random() * most;
    this.#change("waiting", why, delay);
    this.#timer = setTimeout(() => this.#connect(), delay);
  }

  #change(state, why = {}, delay) {
    if (this.state === "closed") return;
    this.state = state;
    clearTimeout(this.#timer); // an interval's too
    if (state === "closed") for (const id of [...this.#pending.keys()]) this.#settle(id, "closed");
    if (this.onstate) call(this.onstate, state, why, delay);
  }
}
