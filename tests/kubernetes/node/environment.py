"""The environment, command and arguments of a container, from its spec and the objects that it names.

Not here: volumes (volumes.py); `resourceFieldRef`, which no pod of the chart has."""

import base64
import re

IMAGE = {"PATH": "/usr/bin"}
# $(NAME) is a variable, $$ is a dollar sign.
REFERENCE = re.compile(r"\$\$|\$\(([-\w.]+)\)")


class NotYet(Exception):
    """Something that the pod needs does not exist. It is tried again."""


def field(pod, path, addresses):
    """What a `fieldRef` means. `addresses` are those of the pod and its node, which may be newer than the object."""
    if found := re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path):
        return pod["metadata"].get(found[1], {}).get(found[2], "")
    own, node = addresses
    fields = {"status.podIP": own, "status.podIPs": own, "status.hostIP": node, "status.hostIPs": node}
    if path in fields:
        return fields[path]
    section, name = path.split(".")
    return pod[section][name]


def data_of(cluster, namespace, kind, source, name_key="name"):
    """The keys of a ConfigMap or Secret as bytes; none if it is missing and optional."""
    found = cluster.find(f"/api/v1/namespaces/{namespace}/{kind}/{source[name_key]}")
    if found is None:
        if source.get("optional"):
            return {}
        raise NotYet(f"{kind} \"{source[name_key]}\" not found")
    if kind == "secrets":
        return {key: base64.b64decode(value) for key, value in found.get("data", {}).items()}
    return {key: value.encode() for key, value in found.get("data", {}).items()}


def expanded(text, variables):
    def value(found):
        return "$" if found[0] == "$$" else variables.get(found[1], found[0])

    return REFERENCE.sub(value, text)


def environment(cluster, pod, container, addresses):
    namespace = pod["metadata"]["namespace"]
    variables = dict(IMAGE)
    for source in container.get("envFrom", []):
        for key, kind in (("secretRef", "secrets"), ("configMapRef", "configmaps")):
            if key in source:
                for name, value in data_of(cluster, namespace, kind, source[key]).items():
                    variables[source.get("prefix", "") + name] = value.decode()
    for each in container.get("env", []):
        variables[each["name"]] = of_variable(cluster, pod, each, addresses, variables)
    return variables


def of_variable(cluster, pod, variable, addresses, variables):
    source = variable.get("valueFrom")
    if not source:
        return expanded(variable.get("value", ""), variables)
    if "fieldRef" in source:
        return field(pod, source["fieldRef"]["fieldPath"], addresses)
    for key, kind in (("secretKeyRef", "secrets"), ("configMapKeyRef", "configmaps")):
        if key in source:
            found = data_of(cluster, pod["metadata"]["namespace"], kind, source[key])
            name = source[key]["key"]
            if name not in found and not source[key].get("optional"):
                raise NotYet(f"{kind} \"{source[key]['name']}\" has no key {name}")
            return found.get(name, b"").decode()
    raise AssertionError(f"the test's node does not know the variable {variable}")


def command(container, variables):
    """The chart always names the command, so the image's entry point does not matter."""
    if not container.get("command"):
        raise AssertionError(f"the container {container['name']} has no command")
    return [expanded(word, variables) for word in [*container["command"], *container.get("args", [])]]
