"""A container that answers: the context of an image, and the Kubernetes manifests around it."""
