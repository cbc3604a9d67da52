"""Follows the objects of one kind through the API's watch: each change, and after an interruption the whole list.

Not here: what follows from a change."""

import http.client

from api import Refused

from .follower import Follower


class Watch(Follower):
    """Calls `changed` with each new or changed object and `gone` with each removed one, in one thread, until the control plane ends
    or the watch is stopped."""

    def __init__(self, cluster, path, changed, gone):
        self.cluster, self.path, self.changed, self.gone = cluster, path, changed, gone
        self.there = {}
        super().__init__()

    def follow(self):
        while not self.ended.is_set():
            try:
                self.stream(self.all())
            except (OSError, http.client.HTTPException, Refused, ValueError):
                # The connection was cut, or the version is too old.
                self.ended.wait(0.2)

    def all(self):
        """Compares the list with what is known; returns its version."""
        found = self.cluster.get(self.path)
        listed = {each["metadata"]["uid"]: each for each in found["items"]}
        for uid in self.there.keys() - listed.keys():
            self.gone(self.there.pop(uid))
        for uid, each in listed.items():
            self.there[uid] = each
            self.changed(each)
        return found["metadata"]["resourceVersion"]

    def stream(self, version):
        for event in self.cluster.events(self.path, version):
            if self.ended.is_set() or event["type"] == "ERROR":
                return
            uid = event["object"]["metadata"]["uid"]
            if event["type"] == "DELETED":
                self.there.pop(uid, None)
                self.gone(event["object"])
            else:
                self.there[uid] = event["object"]
                self.changed(event["object"])
