"""Compares what is in a namespace with what the installed revision says: no object is missing, left over, or has a stale field.

The wanted object is what the API server would make of the manifest if the object were new (a dry run), so defaults do not count as
differences, and a field that an upgrade should have removed does."""

import copy

from cluster import KINDS, Refused, name_of, path

# The scratch namespace for dry runs, where no object has a name that is taken.
SCRATCH = "scratch"
# Annotations of controllers and of Helm.
FOREIGN = ("deployment.kubernetes.io/", "meta.helm.sh/", "pv.kubernetes.io/", "volume.kubernetes.io/", "volume.beta.kubernetes.io/")


def fresh(plane, manifest):
    """The object as new, with all defaults, strictly validated."""
    wanted = copy.deepcopy(manifest)
    wanted["metadata"]["namespace"] = SCRATCH
    # Helm adds it to each object that it creates, also to those of `extraObjects`.
    wanted["metadata"].setdefault("labels", {})["app.kubernetes.io/managed-by"] = "Helm"
    if not plane.find(f"/api/v1/namespaces/{SCRATCH}"):
        plane.create("/api/v1/namespaces", {"metadata": {"name": SCRATCH}})
    return plane.create(path(wanted["kind"], SCRATCH) + "?dryRun=All&fieldValidation=Strict", wanted)


def essence(found, counted=True):
    """What the owner of the object decides; without the number of replicas if another owns it."""
    what = copy.deepcopy({key: value for key, value in found.items() if key not in ("metadata", "status", "apiVersion", "kind")})
    metadata = found["metadata"]
    annotations = metadata.get("annotations", {})
    what["labels"] = metadata.get("labels", {})
    what["annotations"] = {key: value for key, value in annotations.items() if not key.startswith(FOREIGN)}
    spec = what.get("spec", {})
    if found["kind"] == "Service":
        for key in ("clusterIP", "clusterIPs", "healthCheckNodePort"):
            if spec.get(key) != "None" and spec.get(key) != ["None"]:
                spec.pop(key, None)
        for port in spec["ports"]:
            port.pop("nodePort", None)
    if found["kind"] == "PersistentVolumeClaim":
        spec.pop("volumeName", None)
    if not counted:
        spec.pop("replicas", None)
    return what


def paths_that_differ(one, other, at=""):
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            yield from paths_that_differ(one.get(key), other.get(key), f"{at}.{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, pair in enumerate(zip(one, other)):
            yield from paths_that_differ(*pair, f"{at}[{number}]")
    elif one != other:
        yield f"{at}: {one!r}, not {other!r}"


def owned(namespace, release):
    """All objects of the release that no controller made, as pairs of kind and name."""
    found = set()
    for kind in KINDS:
        try:
            listed = namespace.plane.get(path(kind, namespace.name) + f"?labelSelector=app.kubernetes.io/instance={release}")
        except Refused as error:
            raise AssertionError(f"{kind}: {error}") from None
        found |= {(kind, name_of(each)) for each in listed["items"] if not each["metadata"].get("ownerReferences")}
    return found


def differences(namespace, release="tally", kept=()):
    """The differences between the namespace and the installed revision. `kept` are claims that a former one left."""
    manifest = namespace.manifest(release)
    wanted = {(each["kind"], name_of(each)) for each in manifest}
    there = owned(namespace, release)
    found = [f"{kind}/{name} is missing" for kind, name in sorted(wanted - there)]
    found += [f"{kind}/{name} is left over" for kind, name in sorted(there - wanted) if (kind, name) not in kept]
    for each in manifest:
        live = namespace.find(each["kind"], name_of(each))
        if live:
            counted = each["kind"] != "Deployment" or "replicas" in each["spec"]
            pair = essence(live, counted), essence(fresh(namespace.plane, each), counted)
            found += [f"{each['kind']}/{name_of(each)} has {where}" for where in paths_that_differ(*pair)]
    return found
