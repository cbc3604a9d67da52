#!/usr/bin/env python3
"""Makes a container of Azure Blob Storage: make_container.py ENDPOINT ACCOUNT KEY NAME. Standard library only."""

import base64
import email.utils
import hashlib
import hmac
import sys
import urllib.request

endpoint, account, key, name = sys.argv[1:]
headers = {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": "2021-08-06", "Content-Length": "0"}
named = "".join(f"{header}:{headers[header]}\n" for header in ("x-ms-date", "x-ms-version"))
path = urllib.request.urlparse(endpoint).path
signed = "PUT\n" + "\n" * 11 + named + f"/{account}{path}/{name}\nrestype:container"
signature = hmac.new(base64.b64decode(key), signed.encode(), hashlib.sha256).digest()
headers["Authorization"] = f"SharedKey {account}:{base64.b64encode(signature).decode()}"
request = urllib.request.Request(f"{endpoint}/{name}?restype=container", method="PUT", headers=headers)
urllib.request.urlopen(request, timeout=30).close()
