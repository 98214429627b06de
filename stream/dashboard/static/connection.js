/** The line to the session: it heals by itself, and says how long nothing was heard. */

const VERSION = 1;
const RETRY_MS = [300, 1000, 2000, 4000];
const QUIET_MS = 3000; // so long without a word, and the page asks whether anybody is there
const GONE_MS = 4000; // no answer to that: the line is lost, whatever the socket believes
const WRONG_VERSION = 4001;
const REFUSED = 1008;
const OVER = 1012; // the session has ended, and its server with it

export class Connection {
  /** `hear` takes each message by its kind, pieces of EEG as {kind: "eeg"}; `tell` what the line is like. */
  constructor(hear, tell) {
    this.hear = hear;
    this.tell = tell;
    this.watched = [];
    this.waiting = new Map();
    this.lastId = 0;
    this.failures = 0;
    this.heardAt = performance.now();
    setInterval(() => this.#look(), 500);
    window.addEventListener("online", () => this.state === "lost" && this.#open());
    this.#open();
  }

  /** Asks for something; what comes of it, {ok, text}, also where nobody can be asked. */
  ask(request) {
    if (this.socket?.readyState !== WebSocket.OPEN)
      return Promise.resolve({ ok: false, text: "The session cannot be reached: nothing was asked." });
    const id = ++this.lastId;
    this.socket.send(JSON.stringify({ id, ...request }));
    return new Promise((resolve) => this.waiting.set(id, resolve));
  }

  /** Says which of the large kinds are on screen; again after each reconnection. */
  watch(kinds) {
    this.watched = kinds;
    return this.ask({ ask: "watch", kinds });
  }

  #set(state, text = "") {
    this.state = state;
    this.tell({ state, text, ageMs: performance.now() - this.heardAt });
  }

  #open() {
    clearTimeout(this.retry);
    this.#set(this.failures ? "lost" : "connecting");
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/live?v=${VERSION}`);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.heardAt = performance.now();
      if (this.watched.length) this.watch(this.watched);
    };
    socket.onmessage = ({ data }) => this.socket === socket && this.#on(data);
    socket.onclose = ({ code, reason }) => this.socket === socket && this.#closed(code, reason);
    this.socket = socket;
  }

  #on(data) {
    this.heardAt = performance.now();
    this.probedAt = null;
    const message = typeof data === "string" ? JSON.parse(data) : piece(data);
    if (message.kind === "hello") {
      this.failures = 0;
      this.#set("open");
    }
    if (message.kind === "said") {
      this.waiting.get(message.id)?.(message);
      this.waiting.delete(message.id);
    } else this.hear(message);
  }

  #closed(code, reason) {
    for (const resolve of this.waiting.values())
      resolve({ ok: false, text: "The line broke before the session answered; look at the log." });
    this.waiting.clear();
    if (code === WRONG_VERSION) return this.#set("refused", reason || "The page is of another version: reload it.");
    if (code === OVER) return this.#set("over");
    if (code === REFUSED && reason) return this.#set("refused", reason);
    const wait = RETRY_MS[Math.min(this.failures++, RETRY_MS.length - 1)];
    this.retry = setTimeout(() => this.#open(), wait);
    return this.#set("lost");
  }

  /** A silent line may be a dead one: a laptop that slept closes no socket. */
  #look() {
    if (this.state === "lost") return this.#set("lost");
    if (this.state !== "open") return undefined;
    const now = performance.now();
    if (this.probedAt != null && now - this.probedAt > GONE_MS) {
      const socket = this.socket;
      this.socket = null;
      this.probedAt = null;
      socket.close();
      this.#closed(0, "");
    } else if (this.probedAt == null && now - this.heardAt > QUIET_MS) {
      this.probedAt = now;
      this.watch(this.watched);
    }
    return undefined;
  }
}

/** A piece of EEG: `values` has n_samples rows of n_channels, in microvolts. */
function piece(buffer) {
  const length = new DataView(buffer).getUint32(1, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 5, length)));
  const start = 5 + length;
  // A writer that did not pad its header is understood all the same.
  const values = start % 4 ? new Float32Array(buffer.slice(start)) : new Float32Array(buffer, start);
  return { kind: "eeg", ...header, values };
}
