"""What the chart renders: valid for Kubernetes, and consistent with the programs."""

import functools
import json
import pathlib
import re
import subprocess
import tempfile
import unittest

import jsonschema
import kubernetes_validate
import yaml

from chart import (
    BIN, CHART, CONSUL, FULL, HELMS, KUBE, MINIMAL, NAMESPACE, OTHER_DATASET, SCHEDULE, SIZES, TOGGLES, helm, merged, notes, objects,
    of_kind, one, own_container, pods, settings,
)

CASES = {**TOGGLES, **SIZES}
OWN = {file.stem: json.loads(file.read_text()) for file in (pathlib.Path(__file__).parent / "schemas").glob("*.json")}


def flags(*command):
    """The long options of a program, according to its help."""
    said = subprocess.run([BIN / command[0], *command[1:], "--help"], capture_output=True, text=True, check=True)
    return set(re.findall(r"--([a-z][a-z-]+)", said.stdout))


@functools.cache
def validate(text):
    """Checks an object, as JSON, against the schema of its kind. Most objects occur in many cases."""
    found = json.loads(text)
    if schema := OWN.get(found["kind"]):
        jsonschema.validate(found, schema)
    else:
        kubernetes_validate.validate(found, KUBE, strict=True)


def selects(selector, labels):
    return all(labels.get(key) == value for key, value in selector.items())


class Rendered(unittest.TestCase):
    def each(self):
        """Every case with its objects."""
        for name, values in CASES.items():
            with self.subTest(name):
                yield values, objects(values)

    def test_lint_finds_nothing(self):
        for program in HELMS:
            for name, values in SIZES.items():
                with self.subTest(f"{program} {name}"):
                    code, out, err = helm(program, "lint", "--strict", str(CHART), values=values)
                    self.assertEqual(code, 0, out + err)

    def test_kubernetes_takes_every_object_of_both_helms(self):
        for program in HELMS:
            for name, values in CASES.items():
                for found in objects(values, program):
                    with self.subTest(f"{program} {name} {found['kind']} {found['metadata']['name']}"):
                        validate(json.dumps(found, sort_keys=True))

    def test_both_helms_render_the_same(self):
        for name, values in CASES.items():
            with self.subTest(name):
                self.assertEqual(*(objects(values, program) for program in HELMS))

    def test_names_and_labels(self):
        for _, found in self.each():
            seen = set()
            for each in found:
                meta = each["metadata"]
                self.assertNotIn((each["kind"], meta["name"]), seen)
                seen.add((each["kind"], meta["name"]))
                self.assertEqual(meta["namespace"], NAMESPACE)
                self.assertLessEqual(len(meta["name"]), 63)
                for label in ("name", "instance", "component", "version", "part-of", "managed-by"):
                    self.assertIn(f"app.kubernetes.io/{label}", meta["labels"])

    def test_selectors_find_the_pods_that_they_are_about(self):
        for _, found in self.each():
            labels = {name: meta["labels"] for name, meta, _ in pods(found)}
            for each in of_kind(found, "Deployment"):
                own = labels[f"Deployment/{each['metadata']['name']}"]
                self.assertTrue(selects(each["spec"]["selector"]["matchLabels"], own))
            for kind, where in (("Service", None), ("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
                for each in of_kind(found, kind):
                    if each["metadata"]["name"].endswith("-egress"):
                        continue
                    selector = each["spec"]["selector"] if where is None else each["spec"][where]["matchLabels"]
                    fitting = [name for name, own in labels.items() if selects(selector, own)]
                    self.assertEqual(len(fitting), 1, (kind, each["metadata"]["name"], fitting))
                    component = each["metadata"]["labels"]["app.kubernetes.io/component"]
                    self.assertTrue(fitting[0].endswith(component), fitting)
            for each in of_kind(found, "ServiceMonitor"):
                selector = each["spec"]["selector"]["matchLabels"]
                fitting = [s for s in of_kind(found, "Service") if selects(selector, s["metadata"]["labels"])]
                self.assertEqual(len(fitting), 2)
                for service in fitting:
                    self.assertIn("http", [port["name"] for port in service["spec"]["ports"]])

    def test_ports_are_those_that_the_programs_open(self):
        for _, found in self.each():
            for component, file, data in (("coordinator", "coordinator.toml", "grpc"), ("worker", "worker.toml", "flight")):
                container = own_container(one(found, "Deployment", f"-{component}")["spec"]["template"]["spec"])
                ports = {port["name"]: port["containerPort"] for port in container["ports"]}
                configured = settings(found, file)
                opened = {data: configured["listen"], "http": configured["http-listen"]}
                self.assertEqual({name: f":{port}" for name, port in ports.items()}, opened)
                for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                    self.assertEqual(container[probe]["httpGet"]["port"], "http")
                paths = [container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")]
                self.assertEqual(paths, ["/healthz", "/readyz"])
                [advertise] = [arg for arg in container["args"] if arg.startswith("--advertise=")]
                self.assertEqual(advertise, "--advertise=$(POD_IP)")
                for service in of_kind(found, "Service"):
                    if service["spec"]["selector"]["app.kubernetes.io/component"] == component:
                        for port in service["spec"]["ports"]:
                            self.assertEqual(port["port"], ports[port["targetPort"]])
                for policy in of_kind(found, "NetworkPolicy"):
                    if policy["metadata"]["labels"]["app.kubernetes.io/component"] == component:
                        let_in = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
                        self.assertEqual(let_in, set(ports))

    def test_flags_and_settings_exist(self):
        known = {
            ("/usr/bin/tally", "coordinator"): flags("tally", "coordinator"),
            ("/usr/bin/tally", "submit"): flags("tally", "submit"),
            ("/usr/bin/tally", "demo"): flags("tally", "demo"),
            ("/usr/bin/tally-worker", None): flags("tally-worker"),
        }
        for _, found in self.each():
            for name, _, spec in pods(found):
                for container in [own_container(spec)]:
                    [program] = container["command"]
                    sub = container["args"][0] if not container["args"][0].startswith("-") else None
                    for arg in container["args"][1 if sub else 0:]:
                        self.assertTrue(arg.startswith("--"), (name, arg))
                        self.assertIn(arg[2:].split("=")[0], known[program, sub], name)
            self.assertLessEqual(set(settings(found, "coordinator.toml")), known["/usr/bin/tally", "coordinator"])
            self.assertLessEqual(set(settings(found, "worker.toml")), known["/usr/bin/tally-worker", None])

    def test_a_drain_fits_into_the_grace_period(self):
        for _, found in self.each():
            spec = one(found, "Deployment", "-worker")["spec"]["template"]["spec"]
            drain = int(settings(found, "worker.toml")["drain-timeout"].removesuffix("s"))
            self.assertGreaterEqual(spec["terminationGracePeriodSeconds"], drain + 10)

    def test_nothing_else_says_how_many_workers_there_are(self):
        for values, found in self.each():
            mode = values.get("autoscaling", {}).get("mode", "none")
            worker = one(found, "Deployment", "-worker")
            self.assertEqual("replicas" in worker["spec"], mode == "none")
            scalers = of_kind(found, "ScaledObject") + of_kind(found, "HorizontalPodAutoscaler")
            self.assertEqual([each["kind"] for each in scalers],
                             {"none": [], "keda": ["ScaledObject"], "hpa": ["HorizontalPodAutoscaler"]}[mode])
            for each in scalers:
                target = each["spec"]["scaleTargetRef"]
                self.assertEqual((target["kind"], target["name"]), ("Deployment", worker["metadata"]["name"]))

    def test_the_scaler_asks_the_coordinators_for_a_workers_slots(self):
        found = objects(merged(MINIMAL, {"autoscaling": {"mode": "keda"}, "worker": {"slots": 3}}))
        [trigger] = one(found, "ScaledObject", "-worker")["spec"]["triggers"]
        service = one(found, "Service", "-coordinator")
        port = next(port["port"] for port in service["spec"]["ports"] if port["name"] == "grpc")
        address = f"{service['metadata']['name']}.{NAMESPACE}.svc:{port}"
        self.assertEqual(trigger["metadata"], {"scalerAddress": address, "slotsPerWorker": "3"})
        self.assertEqual(settings(found, "worker.toml")["slots"], 3)
        self.assertEqual(settings(found, "worker.toml")["coordinator"], [address])
        peers = one(found, "NetworkPolicy", "-coordinator")["spec"]["ingress"][0]["from"]
        self.assertIn({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "keda"}}}, peers)

    def test_pods_are_restricted(self):
        for _, found in self.each():
            for name, _, spec in pods(found):
                own = spec["securityContext"]
                self.assertIs(own["runAsNonRoot"], True, name)
                self.assertGreater(own.get("runAsUser", 1), 0, name)
                self.assertEqual(own["seccompProfile"], {"type": "RuntimeDefault"}, name)
                self.assertIs(spec["automountServiceAccountToken"], False, name)
                for key in ("hostNetwork", "hostPID", "hostIPC"):
                    self.assertNotIn(key, spec, name)
                for container in [own_container(spec)]:
                    security = container["securityContext"]
                    self.assertIs(security["allowPrivilegeEscalation"], False, name)
                    self.assertIs(security["readOnlyRootFilesystem"], True, name)
                    self.assertEqual(security["capabilities"]["drop"], ["ALL"], name)
                    self.assertIn("memory", container["resources"]["limits"], name)

    def test_what_is_mounted_is_there(self):
        for _, found in self.each():
            claims = {each["metadata"]["name"] for each in of_kind(found, "PersistentVolumeClaim")} | {"tables", "telemetry"}
            maps = {each["metadata"]["name"]: each["data"] for each in of_kind(found, "ConfigMap")}
            for name, _, spec in pods(found):
                volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
                for container in [own_container(spec)]:
                    mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
                    self.assertEqual(mounted, set(volumes), name)
                for volume in volumes.values():
                    if claim := volume.get("persistentVolumeClaim"):
                        self.assertIn(claim["claimName"], claims)
                    # The ConfigMap of roles is the user's.
                    if (config := volume.get("configMap")) and volume["name"] != "tls-roles":
                        for item in config["items"]:
                            self.assertIn(item["key"], maps[config["name"]])

    def test_files_in_settings_are_mounted(self):
        found = objects(TOGGLES["consul by tls"])
        for component in ("coordinator", "worker"):
            configured = settings(found, f"{component}.toml")
            spec = one(found, "Deployment", f"-{component}")["spec"]["template"]["spec"]
            mounts = [mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]]
            for key in ("consul-token-file", "consul-ca-file", "consul-cert", "consul-key"):
                self.assertIn(str(pathlib.PurePosixPath(configured[key]).parent), mounts, key)

    def test_the_helm_test_lies_where_the_tables_are(self):
        def test_pod(values):
            [pod] = of_kind(objects(values), "Pod")
            [container] = pod["spec"]["containers"]
            self.assertIn("--cluster", container["args"])
            [folder] = [arg.removeprefix("--dir=") for arg in container["args"] if arg.startswith("--dir=")]
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            return pod, container, folder.rsplit("/", 1)[0], mounted

        _, container, folder, mounted = test_pod(MINIMAL)
        self.assertEqual((folder, mounted), ("/data/.tally/day-tally", {"data"}))
        # A name that no other test has, also in a second run of one release.
        self.assertIn("--dir=/data/.tally/day-tally/test-$(POD_UID)", container["args"])
        self.assertNotIn("envFrom", container)
        values = merged(TOGGLES["object store"], {"coordinator": {
            "podLabels": {"azure.workload.identity/use": "true"},
            "extraEnv": [{"name": "AZURE_STORAGE_ACCOUNT_NAME", "value": "telemetry"}],
            "extraVolumes": [{"name": "more", "emptyDir": {}}], "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}]}})
        pod, container, folder, mounted = test_pod(values)
        self.assertEqual((folder, mounted), ("gs://bucket/tally", {"own", "store-ca", "more"}))
        # It accesses the store like the coordinators.
        served = one(objects(values), "Deployment", "-coordinator")["spec"]["template"]
        [coordinator] = served["spec"]["containers"]
        self.assertEqual(container["envFrom"], coordinator["envFrom"])
        names = {each["name"] for each in container["env"]} - {"POD_UID"}
        self.assertEqual(names, {"AWS_REGION", "AWS_ENDPOINT_URL", "AWS_CA_BUNDLE", "AZURE_STORAGE_ACCOUNT_NAME"})
        self.assertEqual([each for each in coordinator["env"] if each["name"] in names], container["env"][1:])
        self.assertEqual(pod["metadata"]["labels"]["azure.workload.identity/use"], "true")
        self.assertEqual(pod["spec"]["serviceAccountName"], served["spec"]["serviceAccountName"])
        # With both of them.
        _, container, folder, mounted = test_pod(merged(TOGGLES["both"], {"test": {"url": "s3://b/tests/"}}))
        self.assertEqual((folder, mounted), ("s3://b/tests", {"own"}))

    def test_everything_in_an_object_store_needs_no_volume(self):
        found = objects(TOGGLES["object store"])
        self.assertEqual(of_kind(found, "PersistentVolumeClaim"), [])
        for component in ("coordinator", "worker"):
            spec = one(found, "Deployment", f"-{component}")["spec"]["template"]["spec"]
            [container] = spec["containers"]
            self.assertNotIn("data", [volume["name"] for volume in spec["volumes"]])
            self.assertEqual(container["envFrom"], [{"secretRef": {"name": "keys"}}])
            env = {each["name"]: each.get("value") for each in container["env"]}
            self.assertEqual((env["AWS_REGION"], env["AWS_ENDPOINT_URL"]), ("us-east-1", "https://s3.example.org"))
            mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
            self.assertIn(str(pathlib.PurePosixPath(env["AWS_CA_BUNDLE"]).parent), mounts)

    def test_tls_is_told_to_all_who_speak_it(self):
        secrets = {"coordinator": "c-tls", "worker": "w-tls", "operator": "o-tls"}
        made = {role: f"{FULL}-{role}-tls" for role in (*secrets, "reader")}
        for name, whose in (("tls by secrets", secrets), ("tls by cert-manager", made)):
            found = objects(TOGGLES[name])
            for component in ("coordinator", "worker"):
                configured = settings(found, f"{component}.toml")
                self.assertNotIn("insecure", configured)
                files = {configured[key] for key in ("tls-ca", "tls-cert", "tls-key")}
                self.assertEqual(files, {f"/etc/tally/tls/{file}" for file in ("ca.crt", "tls.crt", "tls.key")})
                self.assertEqual("tokens-file" in configured, name == "tls by secrets")
            roles = {"Deployment/day-tally-coordinator": "coordinator", "Deployment/day-tally-worker": "worker"}
            for pod, _, spec in pods(found):
                volumes = {volume["name"]: volume for volume in spec["volumes"]}
                role = roles.get(pod, "operator")
                self.assertEqual(volumes["tls"]["secret"]["secretName"], whose[role], pod)
                # Only owner and group may read keys: the programs refuse other files.
                self.assertEqual(volumes["tls"]["secret"]["defaultMode"], 0o440)
                container = own_container(spec)
                self.assertIn("/etc/tally/tls", [mount["mountPath"] for mount in container["volumeMounts"]])
                if role == "operator":
                    configured = {each["name"]: each.get("value") for each in container["env"]}
                    self.assertEqual(configured["TALLY_TLS_KEY"], "/etc/tally/tls/tls.key")
                    self.assertEqual(configured["TALLY_TLS_CA"], "/etc/tally/tls/ca.crt")
        roles = {each["spec"]["secretName"]: each["spec"]["uris"] for each in of_kind(found, "Certificate")}
        self.assertEqual(roles, {secret: [f"spiffe://tally/{role}"] for role, secret in made.items()})
        [trigger] = one(found, "ScaledObject", "-worker")["spec"]["triggers"]
        shown = one(found, "TriggerAuthentication", "-worker")
        self.assertEqual(trigger["authenticationRef"]["name"], shown["metadata"]["name"])
        self.assertEqual({each["name"] for each in shown["spec"]["secretTargetRef"]}, {made["reader"]})
        host = trigger["metadata"]["scalerAddress"].split(":")[0]
        self.assertEqual(one(found, "Certificate", "-coordinator")["spec"]["dnsNames"], [host])

    def test_plain_text_is_asked_for(self):
        for component in ("coordinator", "worker"):
            self.assertIs(settings(objects(MINIMAL), f"{component}.toml")["insecure"], True)

    def test_no_secret_stands_anywhere_but_in_secrets(self):
        for _, found in self.each():
            self.assertEqual(of_kind(found, "Secret"), [])
            for name, _, spec in pods(found):
                for container in [own_container(spec)]:
                    for arg in container["args"]:
                        self.assertNotRegex(arg, r"(?i)token=|password|secret|key=", name)

    def test_the_disk_is_what_the_worker_may_use(self):
        for values, found in self.each():
            spec = one(found, "Deployment", "-worker")["spec"]["template"]["spec"]
            configured = settings(found, "worker.toml")
            [spill] = [volume for volume in spec["volumes"] if volume["name"] == "spill"]
            resources = own_container(spec)["resources"]
            size = 5
            if "emptyDir" in spill:
                size = int(spill["emptyDir"]["sizeLimit"].removesuffix("Gi"))
                on_node = size + 1
            else:
                # Only logs are on the node's disk.
                on_node = 1
                size = values.get("worker", {}).get("spillGiB", size)
            for kind in ("requests", "limits"):
                self.assertEqual(resources[kind]["ephemeral-storage"], f"{on_node}Gi")
            limit = int(configured["spill-limit"].removesuffix("MiB"))
            self.assertTrue(0.8 * size * 1024 < limit < 0.95 * size * 1024)
            self.assertEqual(resources["requests"]["memory"], resources["limits"]["memory"])
            memory = int(resources["limits"]["memory"].removesuffix("Mi"))
            self.assertEqual(int(configured["memory-limit"].removesuffix("MiB")), memory * 3 // 4)

    def test_coordinators_share_their_state(self):
        for values, found in self.each():
            deployment = one(found, "Deployment", "-coordinator")["spec"]
            state = settings(found, "coordinator.toml")["state-dir"]
            mounts = {mount["name"]: mount["mountPath"]
                      for mount in deployment["template"]["spec"]["containers"][0]["volumeMounts"]}
            self.assertTrue("://" in state or state.startswith(mounts["data"] + "/"), state)
            consul = bool(values.get("consul", {}).get("url"))
            given = values.get("coordinator", {}).get("strategy")
            self.assertEqual(deployment["strategy"].get("type", "RollingUpdate"),
                             "RollingUpdate" if consul and given != {"type": "Recreate"} else "Recreate")

    def test_an_upgrade_changes_no_selector(self):
        """Kubernetes rejects changes of these fields."""
        def fixed(found):
            return [(each["metadata"]["name"], each["spec"]["selector"]) for each in of_kind(found, "Deployment")]

        for values, found in self.each():
            # The names of the objects may change, their selectors never.
            mine, usual = fixed(found), fixed(objects(MINIMAL))
            if not {"nameOverride", "fullnameOverride"} & set(values):
                self.assertEqual(mine, usual)
            self.assertEqual([selector for _, selector in mine], [selector for _, selector in usual])

    def test_labels_nearer_to_an_object_come_first(self):
        found = objects(TOGGLES["labels of one name"])
        for component, team in (("coordinator", "t"), ("worker", "w")):
            deployment = one(found, "Deployment", f"-{component}")
            self.assertEqual(deployment["metadata"]["labels"]["team"], "t")
            self.assertEqual(deployment["spec"]["template"]["metadata"]["labels"]["team"], team)
        [monitor] = of_kind(found, "ServiceMonitor")
        self.assertEqual((monitor["metadata"]["labels"]["release"], monitor["metadata"]["labels"]["team"]), ("p", "t"))

    def test_names_may_be_as_long_as_they_are(self):
        for program in HELMS:
            code, out, err = helm(program, "template", "a" * 53, str(CHART), "--namespace", "1",
                                  values=TOGGLES["tls by cert-manager"])
            self.assertEqual(code, 0, err)
            for each in yaml.safe_load_all(out):
                if each:
                    self.assertEqual(each["metadata"]["namespace"], "1")
                    self.assertLessEqual(len(each["metadata"]["name"]), 52 if each["kind"] == "CronJob" else 63)

    def test_the_releases_own_jobs_go_where_coordinators_may(self):
        found = objects(merged(TOGGLES["placed"], {"schedule": SCHEDULE}))
        placed = [spec for name, _, spec in pods(found) if not name.startswith("Deployment")]
        self.assertEqual(len(placed), 2)
        for spec in placed:
            self.assertEqual(spec["nodeSelector"], {"pool": "a"})
            self.assertEqual(spec["tolerations"], [{"key": "k", "operator": "Exists"}])
            self.assertEqual(spec["priorityClassName"], "high")

    def test_the_service_says_what_is_spoken(self):
        for name, spoken in (("minimal", "kubernetes.io/h2c"), ("tls by secrets", "https")):
            [port] = one(objects(TOGGLES[name]), "Service", "-coordinator")["spec"]["ports"]
            self.assertEqual(port["appProtocol"], spoken)

    def test_other_settings_make_new_pods(self):
        sums = []
        for values in (MINIMAL, merged(MINIMAL, {"coordinator": {"maxJobs": 5}, "worker": {"spillGiB": 7}})):
            sums.append([meta["annotations"]["checksum/settings"]
                         for name, meta, _ in pods(objects(values)) if name.startswith("Deployment")])
        self.assertEqual(len(sums[0]), 2)
        for before, after in zip(*sums):
            self.assertNotEqual(before, after)

    def test_the_daily_job(self):
        found = objects(merged(MINIMAL, CONSUL, {"schedule": SCHEDULE}))
        cron = one(found, "CronJob", "-daily")["spec"]
        self.assertEqual((cron["concurrencyPolicy"], cron["timeZone"], cron["suspend"]), ("Forbid", "Etc/UTC", False))
        self.assertGreater(cron["startingDeadlineSeconds"], 0)
        self.assertEqual(cron["jobTemplate"]["spec"]["backoffLimit"], 2)
        [container] = cron["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        address = f"{FULL}-coordinator.{NAMESPACE}.svc:7070"
        for arg in (f"--coordinator={address}", "--addons=/data/a", "--main-summary=/data/m", "--output=/data/o"):
            self.assertIn(arg, container["args"])
        # The scheduled time, which the job's name has, decides the day: a retry after midnight computes the same one.
        self.assertIn("--scheduled-job=$(JOB_NAME)", container["args"])
        [name] = [each for each in container["env"] if each["name"] == "JOB_NAME"]
        self.assertEqual(name["valueFrom"]["fieldRef"]["fieldPath"], "metadata.labels['batch.kubernetes.io/job-name']")
        # A run may be hours late.
        self.assertGreater(cron["startingDeadlineSeconds"], 12 * 3600)

    def test_the_daily_job_of_another_dataset(self):
        for more in ({}, TOGGLES["tls by cert-manager"]):
            found = objects(merged(MINIMAL, more, {"schedule": OTHER_DATASET}))
            pod = one(found, "CronJob", "-daily")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
            [container] = pod["containers"]
            args = container["args"]
            for arg in ("--dataset=accounts_by_shop", "--table=events=/data/e", "--table=payments=s3://b/p", "--output=/data/o",
                        "--dataset-option=excluded-accounts=/etc/tally/options/excluded-accounts",
                        "--dataset-option=other-list=/etc/tally/options/other-list"):
                self.assertIn(arg, args)
            self.assertFalse([arg for arg in args if arg.startswith(("--addons", "--main-summary"))])
            [mount] = [mount for mount in container["volumeMounts"] if mount["name"] == "options"]
            self.assertEqual(mount["mountPath"], "/etc/tally/options")
            [volume] = [volume for volume in pod["volumes"] if volume["name"] == "options"]
            own, given = (source["configMap"] for source in volume["projected"]["sources"])
            options = one(found, "ConfigMap", "-daily-options")
            self.assertEqual((own["name"], options["data"]), (options["metadata"]["name"], OTHER_DATASET["datasetOptions"]))
            self.assertEqual(given, {"name": "lists", "items": [{"key": "list.txt", "path": "other-list"}]})

    def test_notes_tell_what_was_installed(self):
        operator = "--tls-cert /etc/tally/operator/tls.crt"
        for values, words, others in (
            (merged(MINIMAL, {"schedule": SCHEDULE, "networkPolicy": {"enabled": False}, "test": {"timeoutSeconds": 500}}),
             ["helm test day --namespace telemetry --timeout 560s", "day-tally-daily", "--addons /data/addons/v2",
              "WARNING: networkPolicy.enabled"], ["--tls", "TALLY_TLS"]),
            (merged(MINIMAL, {"autoscaling": {"mode": "keda"}}), ["and 0 to 10 workers"], ["WARNING", "KEDA before"]),
            ({}, ["1. Test", "2. Put your tables on the volume", "3. Submit", "4. To submit a job every day", "day-tally-data (20Gi)",
                  "localhost/tally:", "all pods run on one node"], ["WARNING"]),
            (merged(MINIMAL, {"image": {"repository": "r.example.org/tally"}}), ["2. Submit", "3. To submit"],
             ["localhost", "one node", "generate"]),
            (merged(TOGGLES["tls by cert-manager"], {}), ["KEDA before 2.20"], []),
            (TOGGLES["keda that is paused"], ["WARNING: autoscaling.keda.paused"], []),
            (merged(MINIMAL, {"worker": {"replicas": 0}}), ["WARNING: worker.replicas is 0"], []),
            ({"coordinator": {"stateDir": "s3://b/t"}}, ["--addons s3://BUCKET/addons/v2", "below s3://b/t:"], []),
            (TOGGLES["tls by secrets"], [operator, "--tls-roles", "a token of tokens", "TALLY_TOKEN_FILE"], ["WARNING"]),
            (TOGGLES["tls by cert-manager"], [operator, "TALLY_TLS_KEY"], ["--tls-roles", "TALLY_TOKEN_FILE"]),
            (TOGGLES["hpa"], ["and 1 to 10 workers"], ["WARNING"]),
        ):
            for program in HELMS:
                text = notes(values, program)
                for word in words:
                    self.assertIn(word, text)
                for word in others:
                    self.assertNotIn(word, text)

    def test_it_can_be_packaged(self):
        for program in HELMS:
            with tempfile.TemporaryDirectory() as folder:
                code, out, err = helm(program, "package", str(CHART), "--destination", folder)
                self.assertEqual(code, 0, out + err)
                self.assertEqual(len(list(pathlib.Path(folder).glob("tally-*.tgz"))), 1)
