"""Services for tests of the control plane, made in one line each."""

from lb.model import Service


def service(name: str = "web", *backends: object, **more: object) -> Service:
    """A service. backends: addresses, or (address, weight) or (address, weight, admin_state)."""
    document = {"name": name, "vip": "10.200.1.1", "port": 80, "protocol": "tcp", **more}
    return Service.model_validate({**document, "backends": [_backend(backend) for backend in backends]})


def _backend(said: object) -> dict[str, object]:
    values = said if isinstance(said, tuple) else (said,)
    return dict(zip(("address", "weight", "admin_state"), values, strict=False))


def named(*services: Service) -> dict[str, Service]:
    """Services by name."""
    return {each.name: each for each in services}


def addresses(count: int, *, net: str = "10.0") -> list[str]:
    """That many backend addresses."""
    return [f"{net}.{n // 250}.{n % 250 + 1}" for n in range(count)]
