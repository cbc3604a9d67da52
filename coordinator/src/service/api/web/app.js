// Which page is shown, its stream, and the token. Pages are fragments of the address: #/ and #/jobs/ID.

import { Refused, follow, forgetToken, get, hasToken, post, setToken, sleep } from "./api.js";
import { find, setText, show } from "./dom.js";
import * as job from "./job.js";
import * as overview from "./overview.js";

// Between two requests for the permissions, if there is no answer, in milliseconds.
const PERMISSIONS_PAUSE = 5000;

let open = null;
let mayCancel = false;

function announce(text) {
  if (text) setText(find("announcement"), text);
}

function connection(text, bad) {
  if (find("connection").textContent === text) return;
  setText(find("connection"), text);
  find("connection").className = bad ? "bad" : "";
}

function failed(refused) {
  const known = refused.leader ? ` The leader is ${refused.leader}.` : "";
  setText(find("failure"), refused.message + known);
  show(find("failure"), true);
  // Over TLS another token can have the role that is missing.
  show(find("login"), refused.status === 401 || (refused.status === 403 && location.protocol.startsWith("https")));
  connection("Not connected", true);
  announce(`Not connected: ${refused.message}`);
}

function connected() {
  show(find("failure"), false);
  show(find("login"), false);
  connection("Live", false);
}

function showCancel() {
  show(find("cancel"), mayCancel && job.live() !== null);
}

/** Asks what the client may do, at each connection: the token and the coordinator can have changed. */
async function permissions(signal) {
  while (!signal.aborted) {
    try {
      mayCancel = (await get("/cluster", signal)).permissions.cancel;
      return showCancel();
    } catch (failure) {
      if (signal.aborted) return;
      if (!(failure instanceof Refused)) throw failure;
      if ([401, 403].includes(failure.status)) {
        mayCancel = false;
        return showCancel();
      }
    }
    await sleep(PERMISSIONS_PAUSE, signal);
  }
}

function cancelFailed(text) {
  setText(find("cancel-failure"), text);
  show(find("cancel-failure"), text !== "");
  announce(text);
}

/** The job that the address names; empty for the overview. */
function named() {
  const text = /^#\/jobs\/([^/]+)$/.exec(location.hash)?.[1] ?? "";
  try {
    return decodeURIComponent(text);
  } catch {
    // Not an escape: the coordinator says that it is no id.
    return text;
  }
}

function current(link, is) {
  if (is) link.setAttribute("aria-current", "page");
  else link.removeAttribute("aria-current");
}

/** Shows the page of the address, and follows its stream while the tab is visible. */
function route(moved) {
  open?.abort();
  let of = named();
  show(find("overview"), !of);
  show(find("job"), of !== "");
  current(find("to-jobs"), !of);
  if (!of) document.title = "Tally";
  if (moved) {
    find("main").focus();
  }
  show(find("forget"), hasToken());
  if (document.hidden) return;
  open = new AbortController();
  const { signal } = open;
  const page = of ? job : overview;
  const path = () => (of ? `/jobs/${encodeURIComponent(of)}/stream` : "/stream");
  const event = (name, data) => {
    // From `latest` and from a prefix to the job itself: later connections must not show another one.
    if (of && data.job_id && data.job_id !== of) {
      of = data.job_id;
      history.replaceState(null, "", `#/jobs/${encodeURIComponent(of)}`);
    }
    announce(page.take(name, data));
    showCancel();
  };
  const opened = () => {
    connected();
    if (of) permissions(signal);
  };
  if (of) {
    job.reset();
    cancelFailed("");
  }
  follow(path, { event, open: opened, failure: failed }, signal).then(() => {
    if (!signal.aborted && find("failure").hidden) connection("The job has ended", false);
  }, (error) => {
    connection("The page failed: reload it", true);
    throw error;
  });
}

find("login").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken(find("token").value.trim());
  find("token").value = "";
  route(false);
});

find("forget").addEventListener("click", () => {
  forgetToken();
  mayCancel = false;
  route(false);
});

find("cancel").addEventListener("click", async () => {
  const id = job.live();
  if (!id || !confirm(`Cancel job ${id}?`)) return;
  cancelFailed("");
  try {
    await post(`/jobs/${encodeURIComponent(id)}/cancel`);
    announce(`Job ${id} is being cancelled`);
  } catch (failure) {
    if (!(failure instanceof Refused)) throw failure;
    cancelFailed(`Job ${id} was not cancelled: ${failure.message}`);
  }
});

// Not a fragment of the address, which names the page.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  find("main").focus();
});

addEventListener("hashchange", () => route(true));
document.addEventListener("visibilitychange", () => {
  if (document.hidden) open?.abort();
  else route(false);
});
route(false);
