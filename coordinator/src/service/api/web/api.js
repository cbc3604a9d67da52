// Requests to the coordinator that served the page, and its streams. The token, if one is needed, is kept for the tab only.

const PREFIX = "/api/v1";
const KEY = "tally-token";
// Between two attempts to connect, in milliseconds: the first, and the longest.
const RETRY = [500, 8000];
// Behind one address there can be several coordinators, of which one leads. How long a request is repeated until it reaches
// that one, and the pause between two requests, in milliseconds.
const [FIND_LEADER, FIND_PAUSE] = [5000, 250];

export const setToken = (token) => sessionStorage.setItem(KEY, token);
export const forgetToken = () => sessionStorage.removeItem(KEY);
export const hasToken = () => sessionStorage.getItem(KEY) !== null;

function headers(more = {}) {
  const token = sessionStorage.getItem(KEY);
  return token ? { ...more, Authorization: `Bearer ${token}` } : more;
}

/** A request that was refused. `status` is 0 without an answer. */
export class Refused extends Error {
  constructor(status, error) {
    super(error.hint ? `${error.message}. Hint: ${error.hint}` : error.message);
    this.status = status;
    this.kind = error.kind;
    this.leader = error.leader;
  }
}

export const sleep = (millis, signal) => new Promise((resolve) => {
  const timer = setTimeout(resolve, millis);
  signal?.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
});

async function askOnce(path, options) {
  let answer;
  try {
    answer = await fetch(PREFIX + path, { cache: "no-store", redirect: "error", ...options });
  } catch (failure) {
    if (failure.name === "AbortError") throw failure;
    throw new Refused(0, { message: "the coordinator does not answer" });
  }
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => null);
  throw new Refused(answer.status, body?.error ?? { message: `status ${answer.status}` });
}

/** The answer of the leader. */
async function ask(path, options) {
  const until = performance.now() + FIND_LEADER;
  for (;;) {
    try {
      return await askOnce(path, options);
    } catch (failure) {
      if (failure.kind !== "no_leader" || performance.now() > until) throw failure;
    }
    await sleep(FIND_PAUSE, options.signal);
  }
}

export async function get(path, signal) {
  return (await ask(path, { headers: headers(), signal })).json();
}

export async function post(path) {
  return (await ask(path, { method: "POST", headers: headers() })).json();
}

/** Calls `take(event, data, id)` for each event of a body. */
async function read(body, take) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch {
      // The connection broke, or the page is left.
      return;
    }
    if (part.done) return;
    rest += part.value;
    const blocks = rest.split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const fields = Object.fromEntries(block.split("\n").map((line) => {
        const at = line.indexOf(": ");
        return at > 0 ? [line.slice(0, at), line.slice(at + 2)] : ["", line];
      }));
      if (fields.data) take(fields.event, JSON.parse(fields.data), fields.id);
    }
  }
}

/**
 * Follows the stream at `path()`, which is asked at each connection, and connects again until `signal` aborts, the stream has the event `end`, or the request is refused for
 * a reason that does not pass. `on.event(name, data)`, `on.open()` and `on.failure(refused)` are called.
 */
export async function follow(path, on, signal) {
  let [pause, last, over] = [RETRY[0], null, false];
  while (!signal.aborted && !over) {
    try {
      const more = last ? { "Last-Event-ID": last } : {};
      const answer = await ask(path(), { headers: headers(more), signal });
      on.open();
      pause = RETRY[0];
      // The server ends a connection after some minutes, which is no failure.
      await read(answer.body, (name, data, id) => {
        last = id ?? last;
        if (name === "end") over = true;
        else if (name === "failure") on.failure(new Refused(503, data.error));
        else on.event(name, data);
      });
    } catch (failure) {
      if (signal.aborted) return;
      if (!(failure instanceof Refused)) throw failure;
      on.failure(failure);
      if ([400, 401, 403, 404].includes(failure.status)) return;
      pause = Math.min(pause * 2, RETRY[1]);
    }
    if (!over) await sleep(pause, signal);
  }
}
