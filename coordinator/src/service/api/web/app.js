// Which page is shown, its stream, and the token. Pages are fragments of the address: #/ and #/jobs/ID.

import { Refused, follow, get, post, setToken } from "./api.js";
import { find, setText, show } from "./dom.js";
import * as job from "./job.js";
import * as overview from "./overview.js";

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
  show(find("login"), refused.status === 401);
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

async function permissions() {
  try {
    mayCancel = (await get("/cluster")).permissions.cancel;
  } catch {
    mayCancel = false;
  }
  showCancel();
}

function current(link, is) {
  if (is) link.setAttribute("aria-current", "page");
  else link.removeAttribute("aria-current");
}

/** Shows the page of the address, and follows its stream while the tab is visible. */
function route(moved) {
  open?.abort();
  const of = decodeURIComponent(/^#\/jobs\/([^/]+)$/.exec(location.hash)?.[1] ?? "");
  show(find("overview"), !of);
  show(find("job"), of !== "");
  current(find("to-jobs"), !of);
  current(find("to-latest"), of === "latest");
  if (!of) document.title = "Tally";
  if (moved) {
    find("main").focus();
  }
  if (document.hidden) return;
  open = new AbortController();
  const page = of ? job : overview;
  const path = of ? `/jobs/${encodeURIComponent(of)}/stream` : "/stream";
  const event = (name, data) => {
    announce(page.take(name, data));
    showCancel();
  };
  if (of) {
    job.reset();
    permissions();
  }
  const { signal } = open;
  follow(path, { event, open: connected, failure: failed }, signal).then(() => {
    if (!signal.aborted && find("failure").hidden) connection("The job has ended", false);
  });
}

find("login").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken(find("token").value.trim());
  find("token").value = "";
  route(false);
});

find("cancel").addEventListener("click", async () => {
  const id = job.live();
  if (!id || !confirm(`Cancel job ${id}?`)) return;
  try {
    await post(`/jobs/${encodeURIComponent(id)}/cancel`);
    announce(`Job ${id} is being cancelled`);
  } catch (failure) {
    if (!(failure instanceof Refused)) throw failure;
    failed(failure);
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
