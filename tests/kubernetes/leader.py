"""Which pod of a coordinator leads.

Not here: how one becomes the leader (`coordinator/src/election`)."""

import urllib.error
import urllib.request


def leads(pod):
    """Whether the coordinator leads: the others answer with 503."""
    try:
        with urllib.request.urlopen(f"http://{pod.addresses[0]}:9090/api/v1/workers", timeout=10) as answer:
            return answer.status == 200
    except urllib.error.HTTPError as error:
        if error.code != 503:
            raise
        return False
