"""Which rules kube-proxy writes for an endpoint, by which the scenarios' bounds differ."""


def layout(kube_proxy: str) -> str:
    """``chains``, one for each endpoint and port (up to 1.35), or ``map``, an element of one (from 1.36)."""
    return "chains" if int(kube_proxy.split(".")[1]) <= 35 else "map"
