#!/usr/bin/env python3
"""Issues credentials like cloud providers, on loopback: an instance's metadata, a container's agent, a token service.

    identity.py CERT KEY [SECONDS]

The first two use HTTP, the token service uses TLS with that certificate. Prints both ports on one line.
Exits at the end of standard input. Each source has its own access key: `by-instance`, `by-container`, `by-web-identity`.
With SECONDS, credentials of the token service end after so long, and their session says when:
`by-web-identity-session-until-MILLISECONDS`, since 1970. GET /token-requests of the first port returns the number of
requests to the token service.
"""

import http.server
import json
import ssl
import sys
import threading
import time
import urllib.parse

EXPIRES = "2099-01-01T00:00:00Z"
SECONDS = float(sys.argv[3]) if len(sys.argv) > 3 else None
ASKED = []
ROLES = "/latest/meta-data/iam/security-credentials/"


def credentials(key):
    names = {"AccessKeyId": key, "SecretAccessKey": f"{key}-secret", "Expiration": EXPIRES}
    return json.dumps(names | {"Token": f"{key}-session"})


def session(key):
    until, token = EXPIRES, f"{key}-session"
    if SECONDS is not None:
        ends = time.time() + SECONDS
        whole, millis = int(ends), int(ends * 1000)
        until = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{millis % 1000:03}Z"
        token = f"{token}-until-{millis}"
    return f"""<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
        <AssumeRoleWithWebIdentityResult><Credentials>
        <SessionToken>{token}</SessionToken><SecretAccessKey>{key}-secret</SecretAccessKey>
        <Expiration>{until}</Expiration><AccessKeyId>{key}</AccessKeyId>
        </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""


class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, text, status=200):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self):
        right = self.path == "/latest/api/token" and "X-aws-ec2-metadata-token-ttl-seconds" in self.headers
        self.answer("an-hour", 200 if right else 404)

    def do_GET(self):
        if self.path.startswith(ROLES) and self.headers.get("X-aws-ec2-metadata-token") == "an-hour":
            role = self.path.removeprefix(ROLES)
            self.answer(credentials("by-instance") if role == "telemetry" else "telemetry")
        elif self.path == "/container" and self.headers.get("Authorization") == "pod-token":
            self.answer(credentials("by-container"))
        elif self.path == "/token-requests":
            self.answer(str(len(ASKED)))
        else:
            self.answer("", 403)

    def do_POST(self):
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        ASKED.append(self.path)
        query = urllib.parse.parse_qs(self.path.partition("?")[2] or sent)
        wanted = {"Action": ["AssumeRoleWithWebIdentity"], "RoleArn": ["arn:aws:iam::1:role/t"]}
        right = wanted.items() <= query.items() and query.get("WebIdentityToken") == ["web-token"]
        self.answer(session("by-web-identity") if right else "", 200 if right else 403)

    def log_message(self, *_):
        pass


plain = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
sealed = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
sealed.socket = context.wrap_socket(sealed.socket, server_side=True)
for server in (plain, sealed):
    threading.Thread(target=server.serve_forever, daemon=True).start()
print(plain.server_port, sealed.server_port, flush=True)
sys.stdin.read()
