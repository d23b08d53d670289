"""A real single-node Kubernetes on this machine, in namespaces of its own.

`python -m lab up` starts it, `python -m lab down` ends it and leaves nothing behind. The control
plane, kubelet and kube-proxy are plain processes; cluster DNS and volumes are pods.
"""
