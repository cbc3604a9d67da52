"""Renders the chart with Helm: values in, objects out. Both major versions of Helm, without a cluster.

Not here: checks of the objects (the tests)."""

import functools
import json
import os
import pathlib
import shutil
import subprocess
import tempfile

import yaml

TOP = pathlib.Path(__file__).resolve().parents[2]
CHART = TOP / "deploy" / "helm" / "tally"
BIN = pathlib.Path(os.environ["TALLY_BIN_DIR"])
HELM = pathlib.Path(os.environ["HELM_BIN"])
HELMS = ["helm-4", "helm-3"]
KUBE = "1.34"
NAMESPACE = "telemetry"
RELEASE = "day"
FULL = "day-tally"
CRDS = ["keda.sh/v1alpha1", "monitoring.coreos.com/v1", "cert-manager.io/v1", "gateway.networking.k8s.io/v1"]

MINIMAL = {"storage": {"existingClaim": "tables"}}
CONSUL = {"consul": {"url": "http://consul.consul.svc:8500"}}
SCHEDULE = {"enabled": True, "addons": "/data/a", "mainSummary": "/data/m", "output": "/data/o"}

OTHER_DATASET = {
    "enabled": True, "dataset": "accounts_by_shop", "addons": "", "mainSummary": "",
    "tables": {"events": "/data/e", "payments": "s3://b/p"}, "output": "/data/o",
    "datasetOptions": {"excluded-accounts": "a: b\n\"c\"\n"},
    "datasetOptionsConfigMap": {"name": "lists", "keys": {"other-list": "list.txt"}}}


def merged(*parts):
    """Merges dicts; later ones win, key by key."""
    whole = {}
    for part in parts:
        for key, value in part.items():
            old = whole.get(key)
            both = isinstance(old, dict) and isinstance(value, dict)
            whole[key] = merged(old, value) if both else value
    return whole


def nested(path, value):
    """`a.b.c` and a value as a dict of dicts."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


# Each toggle alone, on and off if it has both.
TOGGLES = {
    "minimal": {},
    "names": {"nameOverride": "counts", "commonLabels": {"team": "t"}, "commonAnnotations": {"a/b": "c"}},
    "full name": {"fullnameOverride": "yes", "monitoring": {"serviceMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}}},
    "digest": {"image": {"digest": "sha256:" + "a" * 64, "pullPolicy": "Always"}},
    "tag": {"image": {"repository": "r.example.org/t", "tag": "1"}, "imagePullSecrets": [{"name": "r"}]},
    "labels of one name": {
        "commonLabels": {"team": "t", "release": "all"},
        "worker": {"podLabels": {"team": "w"}},
        "monitoring": {"serviceMonitor": {"enabled": True, "labels": {"release": "p"}}},
    },
    "names like numbers": {
        "commonLabels": {"a": "1"}, "commonAnnotations": {"b": "true"},
        "storage": {"existingClaim": "", "claim": {"create": True, "size": "5", "storageClass": "2"}},
        "serviceAccount": {"name": "3"},
        "consul": {"url": "https://c:8501", "tokenSecret": {"name": "4", "key": "5"}, "caSecret": {"name": "6", "key": "7"},
                   "clientCertificateSecret": {"name": "8"}},
        "tls": {"mode": "secrets", "coordinatorSecret": "1", "workerSecret": "2", "operatorSecret": "3", "readerSecret": "4",
                "rolesConfigMap": {"name": "5", "key": "6"}, "tokensSecret": {"name": "7", "key": "8"}},
        "objectStore": {"credentialsSecret": "1", "caSecret": {"name": "2", "key": "3"}},
        "coordinator": {"priorityClassName": "true"},
        "worker": {"priorityClassName": "9"},
        "autoscaling": {"mode": "keda"},
        "schedule": merged(SCHEDULE, {"date": "20170227", "timeZone": "true", "cron": "@daily"}),
    },
    "resources": {
        "coordinator": {"resources": {"requests": {"cpu": 2, "memory": "1024Mi"}, "limits": {"cpu": "2000m", "memory": "1Gi"}}},
        "worker": {"cpu": "1500m", "cpuLimit": "1.5"},
    },
    "own service account": {"serviceAccount": {"create": False, "name": "mine"}},
    "annotated service account": {"serviceAccount": {"annotations": {"role": "x"}}},
    "claim": {"storage": {"existingClaim": "", "claim": {"create": True, "storageClass": "nfs", "accessMode": "ReadWriteMany"}}},
    "claim of one node": {
        "storage": {"existingClaim": ""},
        "coordinator": {"podAntiAffinity": "preferred", "affinity": {"podAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 1, "podAffinityTerm": {"topologyKey": "zone", "labelSelector": {"matchLabels": {"a": "b"}}}}]}}},
    },
    "part of another chart": {"enabled": True, "global": {"imageRegistry": "r.example.org"}},
    "users of the platform": {"podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None}},
    "groups": {
        "podSecurityContext": {"runAsUser": 1000, "supplementalGroups": [5000], "supplementalGroupsPolicy": "Strict"},
        "containerSecurityContext": {"capabilities": {"add": ["NET_BIND_SERVICE"]}, "seLinuxOptions": {"level": "s0:c1,c2"}},
    },
    "containers": {
        component: {
            "startupProbe": {"failureThreshold": 600}, "livenessProbe": {"initialDelaySeconds": 5},
            "readinessProbe": {"periodSeconds": 1},
            "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
            "extraInitContainers": [{"name": "wait", "image": "busybox:1.37", "command": ["true"]}],
            "extraContainers": [{"name": "proxy", "image": "proxy:1", "ports": [{"containerPort": 8080}]}],
            "runtimeClassName": "gvisor", "schedulerName": "yunikorn",
            "strategy": {"type": "Recreate"},
        }
        for component in ("coordinator", "worker")
    },
    "rolling": merged(CONSUL, {
        "coordinator": {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "50%"}}},
        "worker": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}},
    }),
    "spill on a claim": {"worker": {"spillStorageClass": "fast"}},
    "spill on NVMe": {"worker": {"spillVolume": {"hostPath": {"path": "/mnt/nvme", "type": "Directory"}}}},
    "spill on any claim": {"worker": {"spillVolume": {"ephemeral": {"volumeClaimTemplate": {"spec": {
        "accessModes": ["ReadWriteOncePod"], "resources": {"requests": {"storage": "9Gi"}}}}}}}},
    "required nodes": merged(CONSUL, {"coordinator": {"replicas": 3, "podAntiAffinity": "required"}}),
    "ingress": {
        "ingress": {"enabled": True, "className": "nginx", "host": "tally.example.org", "path": "/tally", "tlsSecret": "web",
                    "annotations": {"a": "b"}},
        "networkPolicy": {"webClients": [{"namespaceSelector": {"matchLabels": {"a": "b"}}}]},
    },
    "gateway": {
        "gateway": {"enabled": True, "parentRefs": [{"name": "public", "namespace": "infra"}], "hostnames": ["t.example.org"]},
        "networkPolicy": {"enabled": False},
    },
    "egress": {"networkPolicy": {"egress": [
        {"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"protocol": "TCP", "port": 443}]}]}},
    "labelled jobs": {
        "schedule": merged(SCHEDULE, {"jobLabels": {"queue": "daily"}, "jobAnnotations": {"j": "k"}, "podLabels": {"l": "m"},
                                      "podAnnotations": {"n": "o"}}),
        "test": {"podLabels": {"p": "q"}, "podAnnotations": {"r": "s"}},
    },
    "extra objects": {"extraObjects": [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {
            "name": "{{ include \"tally.fullname\" . }}-mine", "namespace": "{{ .Release.Namespace }}",
            "labels": {"app.kubernetes.io/" + name: "x" for name in (
                "name", "instance", "component", "version", "part-of", "managed-by")}}, "data": {}},
    ]},
    "hostPath": {"storage": {"existingClaim": "", "claim": {"create": False}, "volume": {"hostPath": {"path": "/srv"}}, "mountPath": "/mnt/t"}},
    "csi": {"storage": {"existingClaim": "", "volume": {"csi": {"driver": "d", "volumeAttributes": {"a": "b"}}}}},
    "object store": {
        "storage": {"existingClaim": ""},
        "coordinator": {"stateDir": "gs://bucket/tally"},
        "objectStore": {"credentialsSecret": "keys", "region": "us-east-1", "endpoint": "https://s3.example.org",
                        "caSecret": {"name": "ca"}},
    },
    "both": {"objectStore": {"endpoint": "http://s3:8333"}},
    "tested elsewhere": {"objectStore": {"region": "eu-west-1"}, "test": {"url": "s3://bucket/tests", "timeoutSeconds": 60}},
    "consul": CONSUL,
    "two coordinators": merged(CONSUL, {"coordinator": {"replicas": 2}}),
    "consul by tls": {
        "consul": {
            "url": "https://consul:8501",
            "register": "",
            "tokenSecret": {"name": "token"},
            "caSecret": {"name": "ca"},
            "clientCertificateSecret": {"name": "client"},
        }
    },
    "tls by secrets": {
        "tls": {
            "mode": "secrets", "coordinatorSecret": "c-tls", "workerSecret": "w-tls", "operatorSecret": "o-tls",
            "rolesConfigMap": {"name": "roles"}, "tokensSecret": {"name": "tokens"},
        },
        "schedule": SCHEDULE,
    },
    "tls by cert-manager": {
        "tls": {"mode": "certManager", "certManager": {"issuerRef": {"name": "own", "kind": "ClusterIssuer"}}},
        "autoscaling": {"mode": "keda"},
        "schedule": SCHEDULE,
    },
    "consul on each node": {
        "consul": {"url": "http://$(HOST_IP):8500", "register": "agent", "prefix": "teams/day"},
        "networkPolicy": {"consulPeers": [{"ipBlock": {"cidr": "10.0.0.0/16"}}]},
    },
    "consul enterprise": {"consul": {"url": "http://c:8500", "namespace": "data", "partition": "eu", "register": "agent"}},
    "traces": {"traces": {"endpoint": "http://otel.monitoring.svc:4317"}},
    "notices": {
        "notifications": {
            "webhook": {"url": "https://hooks.example.org/tally", "tokenSecret": {"name": "hook", "key": "bearer"}},
            "openlineage": {"url": "http://marquez.lineage.svc:5000", "namespace": "team", "tokenSecret": {"name": "lineage"}},
            "caSecret": {"name": "receivers"},
        },
        "schedule": merged(SCHEDULE, {"readyMarker": "_SUCCESS"}),
    },
    "notices to a secret url": {
        "notifications": {"webhook": {"tokenSecret": {"name": "hook"}}},
        "coordinator": {"extraEnv": [
            {"name": "TALLY_NOTIFY_URL", "valueFrom": {"secretKeyRef": {"name": "hook", "key": "url"}}}]},
    },
    "text logs": {"log": {"level": "debug", "format": "text"}},
    "state dir": {"coordinator": {"stateDir": "/data/journal"}},
    "node port": {"coordinator": {"service": {"type": "NodePort", "annotations": {"x": "y"}, "port": 7777}}},
    "no budgets": {
        "coordinator": {"podDisruptionBudget": {"enabled": False}},
        "worker": {"podDisruptionBudget": {"enabled": False}},
    },
    "placed": {
        component: {
            "nodeSelector": {"pool": "a"},
            "tolerations": [{"key": "k", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "arch", "operator": "In", "values": ["amd64"]}]}]}}},
            "topologySpreadConstraints": [
                {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
                 "labelSelector": {"matchLabels": {"a": "b"}}}],
            "priorityClassName": "high",
            "podLabels": {"l": "m"},
            "podAnnotations": {"n": "o"},
            "extraEnv": [{"name": "A", "value": "1"},
                         {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
            "extraVolumes": [{"name": "more", "emptyDir": {}}],
            "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
        }
        for component in ("coordinator", "worker")
    },
    "cpu limit": {"worker": {"cpu": "500m", "cpuLimit": "2"}},
    "long drain": {"worker": {"drainTimeoutSeconds": 3600}},
    "own grace": {"worker": {"drainTimeoutSeconds": 60, "terminationGracePeriodSeconds": 70}},
    "no workers": {"worker": {"replicas": 0}},
    "keda": {"autoscaling": {"mode": "keda"}},
    "keda by polling": {"autoscaling": {"mode": "keda", "minReplicas": 2, "keda": {"push": False}}},
    "keda that is paused": {"autoscaling": {"mode": "keda", "minReplicas": 3, "keda": {
        "paused": True, "extraTriggers": [{"type": "cron", "metadata": {"timezone": "Etc/UTC", "start": "0 3 * * *",
                                                                       "end": "0 5 * * *", "desiredReplicas": "5"}}]}}},
    "keda without fallback": {"autoscaling": {"mode": "keda", "keda": {"fallback": {"enabled": False}}}},
    "hpa": {"autoscaling": {"mode": "hpa", "minReplicas": 1, "hpa": {"metricLabels": {"namespace": "x"}}}},
    "schedule": {"schedule": SCHEDULE},
    "schedule of one date": {"schedule": merged(SCHEDULE, {"date": "20170227", "suspend": True})},
    "schedule of another dataset": {"schedule": OTHER_DATASET},
    "schedule of another dataset with tls": merged(
        {"schedule": OTHER_DATASET},
        {"tls": {"mode": "certManager", "certManager": {"issuerRef": {"name": "own", "kind": "ClusterIssuer"}}}}),
    "no policies": {"networkPolicy": {"enabled": False}},
    "clients": {"networkPolicy": {"clients": [
        {"namespaceSelector": {"matchLabels": {"a": "b"}}}, {"ipBlock": {"cidr": "10.0.0.0/8"}}]}},
    "service monitor": {"monitoring": {"serviceMonitor": {
        "enabled": True, "labels": {"r": "p"}, "scrapeTimeout": "20s",
        "relabelings": [{"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "node"}],
        "metricRelabelings": [{"action": "drop", "sourceLabels": ["__name__"], "regex": "process_.*"}]}}},
    "rules": {"monitoring": {"prometheusRule": {"enabled": True, "labels": {"r": "p"}}}},
    "own rules": {"monitoring": {"prometheusRule": {"enabled": True, "freshnessHours": 0, "runbookUrl": "https://runbooks/tally",
        "additionalRules": [{"record": "tally:slots", "expr": "sum(tally_slots)"}, {"alert": "Mine", "expr": "vector(1) > 2"}]}}},
    "rules with certificates": {
        "tls": {"mode": "certManager", "certManager": {"issuerRef": {"name": "own", "kind": "ClusterIssuer"}}},
        "monitoring": {"prometheusRule": {"enabled": True}},
    },
    "dashboard": {"monitoring": {"dashboard": {"enabled": True, "labels": {"g": "1"}}}},
}
TOGGLES = {name: merged(MINIMAL, values) for name, values in TOGGLES.items()}
# Without any value.
TOGGLES["nothing"] = {}
SIZES = {file.name: yaml.safe_load(file.read_text()) for file in sorted((CHART / "ci").glob("*.yaml"))}


def helm(program, *args, values=None):
    """Runs a version of Helm; returns its exit code, standard output and standard error."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        more = []
        if values is not None:
            json.dump(values, file)
            file.flush()
            more = ["--values", file.name]
        run = subprocess.run(
            [HELM / program, *args, *more], capture_output=True, text=True, timeout=120,
            # Does not use the Helm configuration of the user.
            env={"PATH": os.environ["PATH"], "HOME": tempfile.gettempdir(), "HELM_DEBUG": "false"},
        )
    return run.returncode, run.stdout, run.stderr


def template(values, program="helm-4", chart=CHART, more=()):
    """The exit code of rendering, the text, and the messages of Helm."""
    known = [word for crd in CRDS for word in ("--api-versions", crd)]
    return helm(
        program, "template", RELEASE, str(chart), "--namespace", NAMESPACE, "--kube-version", KUBE, *known, *more,
        values=values
    )


def notes(values, program="helm-4"):
    """The notes after an installation. Helm does not show them without a cluster, so they are rendered as a value of an object."""
    with tempfile.TemporaryDirectory() as folder:
        chart = shutil.copytree(CHART, pathlib.Path(folder) / "tally")
        (chart / "templates" / "NOTES.txt").rename(chart / "notes.txt")
        (chart / "templates" / "notes.yaml").write_text(
            'kind: Notes\napiVersion: test/v1\ntext: {{ tpl (.Files.Get "notes.txt") . | toJson }}\n')
        # A cluster without KEDA.
        code, out, err = helm(program, "template", RELEASE, str(chart), "--namespace", NAMESPACE, "--kube-version", KUBE,
                              "--show-only", "templates/notes.yaml", values=values)
    if code:
        raise AssertionError(err)
    return next(found for found in yaml.load_all(out, yaml.CSafeLoader) if found)["text"]


@functools.cache
def _objects(program, values):
    code, out, err = template(json.loads(values), program)
    if code:
        raise AssertionError(err)
    return [found for found in yaml.load_all(out, yaml.CSafeLoader) if found]


def objects(values, program="helm-4"):
    """All objects of these values."""
    return _objects(program, json.dumps(values, sort_keys=True))


def rendered(*args, **named):
    """All objects; not kept, unlike those of `objects`."""
    code, out, err = template(*args, **named)
    if code:
        raise AssertionError(err)
    return [found for found in yaml.load_all(out, yaml.CSafeLoader) if found]


def of_kind(found, kind):
    return [each for each in found if each["kind"] == kind]


def one(found, kind, suffix):
    """The object of that kind whose name has that ending."""
    fitting = [each for each in of_kind(found, kind) if each["metadata"]["name"].endswith(suffix)]
    assert len(fitting) == 1, (kind, suffix, [each["metadata"]["name"] for each in of_kind(found, kind)])
    return fitting[0]


def pods(found):
    """Name, labels and spec of every pod that the objects create."""
    for each in found:
        name = f"{each['kind']}/{each['metadata']['name']}"
        match each["kind"]:
            case "Deployment":
                template_ = each["spec"]["template"]
                yield name, template_["metadata"], template_["spec"]
            case "CronJob":
                template_ = each["spec"]["jobTemplate"]["spec"]["template"]
                yield name, template_["metadata"], template_["spec"]
            case "Pod":
                yield name, each["metadata"], each["spec"]


def own_container(spec):
    """The chart's container of a pod; additional ones come after it."""
    return spec["containers"][0]


def settings(found, file):
    """A settings' file of the ConfigMap."""
    import tomllib

    return tomllib.loads(one(found, "ConfigMap", "-settings")["data"][file])
