"""Serves the logs of containers to the API server, for `kubectl logs` without its options.

Not here: the other requests that a kubelet serves, such as `kubectl exec`."""

import http.server
import re
import ssl
import threading

PORT = 10250


class Logs(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        found = re.fullmatch(r"/containerLogs/([^/]+)/([^/]+)/([^/?]+)(\?.*)?", self.path)
        text = found and self.said(*found.groups()[:3])
        data = ("there is no such log here\n" if text is None else text).encode()
        self.send_response(404 if text is None else 200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def said(self, namespace, name, container):
        for pod in self.server.agent.pods(namespace):
            if pod.name == name:
                logs = sorted(pod.folder.glob(f"{container}.*/log"), key=lambda log: int(log.parent.suffix[1:]))
                return logs[-1].read_text(errors="replace") if logs else None

    def log_message(self, *_):
        pass


def serve(agent, address):
    server = http.server.ThreadingHTTPServer((address, PORT), Logs)
    server.daemon_threads = True
    server.agent = agent
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(agent.cluster.folder / "server.crt", agent.cluster.folder / "server.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
