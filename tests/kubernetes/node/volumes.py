"""The volumes of a pod as folders of this machine. A claim is the folder of its volume's `hostPath`, which all nodes share.

Not here: updates of ConfigMaps and Secrets after the start, size limits, and volumes that need a provisioner."""

import os
import pathlib
import shutil

from . import environment
from .environment import NotYet, data_of
from .sandbox import Mount


def write(folder, files, mode, group):
    """The files of a ConfigMap or Secret. With a group, as the kubelet does it, the group may read them."""
    for name, data in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        os.chown(file, 0, group or 0)
        file.chmod(mode | (0o440 if group else 0))


def chosen(data, source):
    """The files that a source selects."""
    if "items" not in source:
        return data
    missing = [item["key"] for item in source["items"] if item["key"] not in data]
    if missing and not source.get("optional"):
        raise NotYet(f"references non-existent config key: {missing[0]}")
    return {item["path"]: data[item["key"]] for item in source["items"] if item["key"] in data}


def claimed(cluster, namespace, name):
    claim = cluster.find(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}")
    if not claim or claim.get("status", {}).get("phase") != "Bound":
        raise NotYet(f"persistentvolumeclaim \"{name}\" is not bound")
    volume = cluster.get(f"/api/v1/persistentvolumes/{claim['spec']['volumeName']}")
    return pathlib.Path(volume["spec"]["hostPath"]["path"])


class Volumes:
    def __init__(self, cluster, pod, folder, addresses):
        self.cluster, self.pod, self.addresses = cluster, pod, addresses
        self.folder = folder / "volumes"
        self.namespace = pod["metadata"]["namespace"]
        self.group = pod["spec"].get("securityContext", {}).get("fsGroup")
        self.there = {volume["name"]: self.make(volume) for volume in pod["spec"].get("volumes", [])}

    def make(self, volume):
        if "persistentVolumeClaim" in volume:
            return claimed(self.cluster, self.namespace, volume["persistentVolumeClaim"]["claimName"])
        if "hostPath" in volume:
            return pathlib.Path(volume["hostPath"]["path"])
        folder = self.folder / volume["name"]
        # A try that found less than it needed may have made some of it.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if "emptyDir" in volume:
            os.chown(folder, 0, self.group or 0)
            folder.chmod(0o2777 if self.group else 0o777)
            return folder
        sources = volume["projected"]["sources"] if "projected" in volume else [volume]
        for source in sources:
            self.fill(folder, source, volume.get("projected", {}).get("defaultMode"))
        return folder

    def fill(self, folder, source, mode):
        if "configMap" in source:
            kind, what = "configmaps", source["configMap"]
            data = data_of(self.cluster, self.namespace, kind, what)
        elif "secret" in source:
            kind, what = "secrets", source["secret"]
            data = data_of(self.cluster, self.namespace, kind, what, "secretName" if "secretName" in what else "name")
        elif "downwardAPI" in source:
            what = source["downwardAPI"]
            files = {item["path"]: environment.field(self.pod, item["fieldRef"]["fieldPath"], self.addresses).encode()
                     for item in what["items"]}
            write(folder, files, mode or what.get("defaultMode", 0o644), self.group)
            return
        else:
            raise AssertionError(f"the test's node does not know the volume {source}")
        write(folder, chosen(data, what), mode or what.get("defaultMode", 0o644), self.group)

    def mounts(self, container):
        found = []
        for mount in container.get("volumeMounts", []):
            source = self.there[mount["name"]] / mount.get("subPath", "")
            found.append(Mount(source, mount["mountPath"].rstrip("/"), mount.get("readOnly", False)))
        # Outer folders first.
        return sorted(found, key=lambda mount: mount.path)
