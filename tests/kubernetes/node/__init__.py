"""A small kubelet for tests: runs the pods of several node objects as processes of this machine, each pod in a network namespace of its
own, each container on the root file system of the image.

Not here: images from a registry, limits of CPU, memory and disk (cgroups), seccomp profiles, and requests such as `kubectl exec`."""
