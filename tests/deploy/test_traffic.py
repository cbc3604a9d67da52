"""Who reaches whom: addresses, Consul's agents, ingress and gateway, egress, scrapes, and objects of the user.

Not here: TLS (`test_objects`)."""

import unittest

from chart import CONSUL, FULL, MINIMAL, NAMESPACE, TOGGLES, merged, objects, of_kind, one, own_container, settings


def peers(found, component, port):
    """Who is admitted to a port of a component."""
    policy = one(found, "NetworkPolicy", f"-{component}")
    return [peer for rule in policy["spec"]["ingress"] if rule["ports"] == [{"protocol": "TCP", "port": port}]
            for peer in rule["from"]]


class Traffic(unittest.TestCase):
    def test_consul_on_the_node_of_each_pod(self):
        found = objects(TOGGLES["consul on each node"])
        for component in ("coordinator", "worker"):
            container = own_container(one(found, "Deployment", f"-{component}")["spec"]["template"]["spec"])
            self.assertIn("--consul=http://$(HOST_IP):8500", container["args"])
            # Kubernetes replaces only variables that are defined before.
            [host] = [each for each in container["env"] if each["name"] == "HOST_IP"]
            self.assertEqual(host["valueFrom"]["fieldRef"]["fieldPath"], "status.hostIP")
            configured = settings(found, f"{component}.toml")
            self.assertNotIn("consul", configured)
            self.assertEqual(configured["consul-register"], "agent")
        self.assertNotIn("coordinator", settings(found, "worker.toml"))

    def test_agents_of_consul_reach_the_pods_that_they_check(self):
        agents = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "consul"}}}
        for register, admitted in (("agent", True), ("", True), ("kv", False)):
            found = objects(merged(MINIMAL, CONSUL, {"consul": {"register": register}}))
            for component, port in (("coordinator", "grpc"), ("worker", "flight")):
                self.assertEqual(agents in peers(found, component, port), admitted, (register, component))
        nodes = {"ipBlock": {"cidr": "10.0.0.0/16"}}
        self.assertIn(nodes, peers(objects(TOGGLES["consul on each node"]), "worker", "flight"))

    def test_labels_of_namespaces_replace_the_defaults(self):
        """Helm adds the keys of a value to those of its default, and a selector with both would admit no namespace. None admits all."""
        for key, component, port, default in (("keda", "coordinator", "grpc", "keda"), ("monitoring", "coordinator", "http", "monitoring"),
                                              ("monitoring", "worker", "http", "monitoring")):
            for given, wanted in (({}, {"kubernetes.io/metadata.name": default}), ({"team": "a"}, {"team": "a"})):
                found = objects(merged(TOGGLES["keda"], {"networkPolicy": {f"{key}NamespaceLabels": given}}))
                among = [peer["namespaceSelector"]["matchLabels"] for peer in peers(found, component, port) if "namespaceSelector" in peer]
                self.assertEqual(among, [wanted], (component, port))

    def test_ingress_and_gateway_lead_to_the_http_port(self):
        for name in ("ingress", "gateway"):
            found = objects(TOGGLES[name])
            service = one(found, "Service", "-web")
            [port] = service["spec"]["ports"]
            self.assertEqual((port["name"], port["port"], port["targetPort"]), ("http", 9090, "http"))
            self.assertEqual(service["spec"]["selector"]["app.kubernetes.io/component"], "coordinator")
            self.assertEqual(port["appProtocol"], "http")
        [port] = one(objects(merged(TOGGLES["tls by secrets"], TOGGLES["gateway"])), "Service", "-web")["spec"]["ports"]
        self.assertEqual(port["appProtocol"], "https")
        found = objects(TOGGLES["ingress"])
        spec = one(found, "Ingress", "-web")["spec"]
        [rule] = spec["rules"]
        [path] = rule["http"]["paths"]
        self.assertEqual((rule["host"], path["path"]), ("tally.example.org", "/tally"))
        self.assertEqual(path["backend"]["service"], {"name": f"{FULL}-web", "port": {"name": "http"}})
        self.assertEqual((spec["ingressClassName"], spec["tls"]), ("nginx", [{"hosts": ["tally.example.org"], "secretName": "web"}]))
        self.assertIn({"namespaceSelector": {"matchLabels": {"a": "b"}}}, peers(found, "coordinator", "http"))
        route = one(objects(TOGGLES["gateway"]), "HTTPRoute", "-web")["spec"]
        self.assertEqual(route["rules"][0]["backendRefs"], [{"name": f"{FULL}-web", "port": 9090}])
        self.assertEqual([each for each in of_kind(objects(MINIMAL), "Service") if each["metadata"]["name"].endswith("-web")], [])

    def test_the_names_of_ingress_and_gateway_are_accepted(self):
        own = [f"{FULL}-web.{NAMESPACE}", f"{FULL}-coordinator-metrics.{NAMESPACE}"]
        for name, more in (("minimal", []), ("ingress", ["tally.example.org"]), ("gateway", ["t.example.org"])):
            self.assertEqual(settings(objects(TOGGLES[name]), "coordinator.toml")["http-host"], own + more)

    def test_egress_is_what_the_values_name_and_the_release(self):
        policy = one(objects(TOGGLES["egress"]), "NetworkPolicy", "-egress")["spec"]
        own = {"app.kubernetes.io/name": "tally", "app.kubernetes.io/instance": "day"}
        self.assertEqual((policy["policyTypes"], policy["podSelector"]), (["Egress"], {"matchLabels": own}))
        among, names, given = policy["egress"]
        self.assertEqual(among, {"to": [{"podSelector": {"matchLabels": own}}]})
        self.assertEqual([port["port"] for port in names["ports"]], [53, 53])
        self.assertEqual(given["to"], [{"ipBlock": {"cidr": "10.0.0.0/8"}}])
        for policy in of_kind(objects(MINIMAL), "NetworkPolicy"):
            self.assertEqual(policy["spec"]["policyTypes"], ["Ingress"])

    def test_a_scrape_as_the_values_say(self):
        [endpoint] = one(objects(TOGGLES["service monitor"]), "ServiceMonitor", "")["spec"]["endpoints"]
        self.assertEqual(endpoint["scrapeTimeout"], "20s")
        self.assertEqual(endpoint["relabelings"][0]["targetLabel"], "node")
        self.assertEqual(endpoint["metricRelabelings"][0]["action"], "drop")

    def test_objects_of_the_user(self):
        mine = one(objects(TOGGLES["extra objects"]), "ConfigMap", "-mine")
        self.assertEqual((mine["metadata"]["name"], mine["metadata"]["namespace"]), (f"{FULL}-mine", NAMESPACE))
        text = "kind: ConfigMap\napiVersion: v1\nmetadata: {name: {{ .Release.Name }}-text}\n"
        found = objects(merged(MINIMAL, {"extraObjects": [text, text.replace("-text", "-other")]}))
        for name in ("day-text", "day-other"):
            self.assertTrue(one(found, "ConfigMap", name))
