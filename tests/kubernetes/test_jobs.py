"""The daily job: CronJob, Job and pods, by the controllers of Kubernetes; the tests decide with which exit code a pod ends.

Not here: what the pod does, and the day that `--scheduled-job` computes (unit tests of the command)."""

import calendar
import re
import time
import unittest

from cluster import Namespace, SCHEDULE, name_of, wait_for
from readiness import end, now

DAILY = {"schedule": SCHEDULE}


class Jobs(unittest.TestCase):
    def job_of(self, namespace, name="by-hand"):
        namespace.kubectl("create", "job", "--from=cronjob/tally-daily", name)
        return self.pod_of(namespace, name)

    def pod_of(self, namespace, job, seen=()):
        def found():
            fitting = [pod for pod in namespace.pods("job")
                       if pod["metadata"]["labels"]["batch.kubernetes.io/job-name"] == job and name_of(pod) not in seen]
            return fitting[0] if fitting else None

        return wait_for(f"a pod of {job}", found)

    def ended(self, namespace, job):
        """Type and reason of the condition with which the job ended."""
        def found():
            conditions = namespace.get("Job", job)["status"].get("conditions", [])
            return next(((each["type"], each.get("reason")) for each in conditions
                         if each["type"] in ("Complete", "Failed") and each["status"] == "True"), None)

        return wait_for(f"the end of {job}", found)

    def test_a_scheduled_job(self):
        """The name that the controller gives a job ends with the scheduled minute, and the pod reads it from its label."""
        with Namespace() as namespace:
            namespace.install({"schedule": {**SCHEDULE, "cron": "* * * * *"}})
            job = wait_for("the first job", lambda: (namespace.all("Job") or [None])[0], 150)
            minute = int(re.fullmatch(r"tally-daily-(\d+)", name_of(job))[1])
            created = calendar.timegm(time.strptime(job["metadata"]["creationTimestamp"], "%Y-%m-%dT%H:%M:%SZ"))
            self.assertIn(created // 60 - minute, (0, 1))
            pod = self.pod_of(namespace, name_of(job))
            [container] = pod["spec"]["containers"]
            [variable] = [each for each in container["env"] if each["name"] == "JOB_NAME"]
            label = re.fullmatch(r"metadata\.labels\['(.*)'\]", variable["valueFrom"]["fieldRef"]["fieldPath"])[1]
            self.assertEqual(pod["metadata"]["labels"][label], name_of(job))
            self.assertIn("--scheduled-job=$(JOB_NAME)", container["args"])
            # The next one waits for the end of the first: concurrencyPolicy is Forbid.
            namespace.patch("CronJob", "tally-daily", {"spec": {"suspend": True}})
            end(namespace, pod, 0)
            self.assertEqual(self.ended(namespace, name_of(job))[0], "Complete")

    def test_a_failure_that_a_retry_may_cure(self):
        with Namespace() as namespace:
            namespace.install(DAILY)
            seen = []
            # backoffLimit is 2: three tries.
            for _ in range(3):
                pod = self.pod_of(namespace, "by-hand", seen) if seen else self.job_of(namespace)
                seen.append(name_of(pod))
                end(namespace, pod, 1)
            self.assertEqual(self.ended(namespace, "by-hand"), ("Failed", "BackoffLimitExceeded"))

    def test_a_failure_that_no_retry_cures(self):
        for code in (2, 3, 6):
            with self.subTest(code), Namespace() as namespace:
                namespace.install(DAILY)
                end(namespace, self.job_of(namespace), code)
                self.assertEqual(self.ended(namespace, "by-hand"), ("Failed", "PodFailurePolicy"))
                self.assertEqual(len(namespace.all("Pod")) - len(namespace.pods()), 1)

    def test_an_eviction_is_no_failure(self):
        with Namespace() as namespace:
            namespace.install({"schedule": {**SCHEDULE, "backoffLimit": 0}})
            first = self.job_of(namespace)
            target = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "lastTransitionTime": now()}
            end(namespace, first, 143, [target])
            second = self.pod_of(namespace, "by-hand", [name_of(first)])
            end(namespace, second, 0)
            self.assertEqual(self.ended(namespace, "by-hand")[0], "Complete")

    def test_the_pod_of_helm_test(self):
        """Helm creates it, waits for its end, and reports it."""
        import threading

        for program in ("helm-4", "helm-3"):
            for code in (0, 1):
                with self.subTest(f"{program} {code}"), Namespace(program=program) as namespace:
                    namespace.install()

                    def play():
                        end(namespace, wait_for("the test pod", lambda: namespace.find("Pod", "tally-test")), code)

                    thread = threading.Thread(target=play)
                    thread.start()
                    done = namespace.try_helm("test", "tally", "--timeout", "2m")
                    thread.join()
                    self.assertEqual(done.code == 0, code == 0, done.out + done.err)
                    # A pod that failed remains for its log.
                    self.assertEqual(namespace.find("Pod", "tally-test") is None, code == 0)
