"""vitlite doctor."""

import importlib.metadata
import importlib.util
import os
import platform

import click


@click.command(name="doctor", epilog="Example: vitlite doctor")
def command() -> None:
    """Say what is installed, what is active, and why not."""
    click.echo(f"python {platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs")
    for package in ("vitlite", "torch", "triton", "numpy", "numba", "scipy", "pillow", "click", "onnx", "onnxruntime"):
        click.echo(f"  {package:11} {version(package)}")
    if importlib.util.find_spec("torch") is None:
        click.echo("without torch only `vitlite predict MODEL.onnx`, `eval-maps` and `data` work")
        return
    report_torch()
    report_kernels()
    report_weights()


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def report_torch() -> None:
    from vitlite.engine.distributed import device_name, has_fast_bfloat16, pick_device

    device = pick_device()
    precision = "bfloat16" if has_fast_bfloat16(device) else "float32"
    click.echo(f"device: {device} ({device_name(device)}); precision=auto trains in {precision}")


def report_kernels() -> None:
    from vitlite.kernels import backends

    click.echo("operators:")
    for op, found in backends().items():
        chosen = ", ".join(f"{backend} on {device}" for device, backend in found["auto"].items())
        click.echo(f"  {op}: {chosen}")
        for backend, reason in found["unavailable"].items():
            click.echo(f"    {backend} not available: {reason}")


def report_weights() -> None:
    from vitlite import backbones
    from vitlite.backbones import transformer_weights

    click.echo("backbone weights, with --weights auto:")
    for name in backbones.available():
        click.echo(f"  {name}: {backbones.whereabouts(name)}")
    click.echo("transformer weights, of methods that start from them:")
    for name in transformer_weights.PUBLISHED:
        click.echo(f"  {name}: {transformer_weights.whereabouts(name)}")
