"""The dialect of Ray Serve: the ingress of ray.serve.llm, and plain deployments."""

from proxy.simulator.rayserve.custom import RayCluster

dialect = RayCluster()
