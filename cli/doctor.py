"""vitlite doctor."""

import importlib.metadata
import importlib.util
import os
import platform

import click

PACKAGES = ("torch", "triton", "numpy", "numba", "scipy", "pillow", "click", "onnx", "onnxscript", "onnxruntime")
ABSENT = "not installed"


@click.command(name="doctor", epilog="Example: vitlite doctor")
def command() -> None:
    """Say what is installed, what is active, and why not. What matters most comes first."""
    found = {package: version(package) for package in PACKAGES}
    if importlib.util.find_spec("torch") is None:
        click.echo("torch: not installed, so only `vitlite predict MODEL.onnx`, `eval-maps` and `data` work")
    else:
        report_torch()
        report_operators()
        report_default_weights()
    report_export(found)
    click.echo(
        f"vitlite {version('vitlite')}, python {platform.python_version()} on {platform.system()} "
        f"{platform.machine()}, {os.cpu_count()} CPUs"
    )
    for package, number in found.items():
        click.echo(f"  {package:11} {number}")
    if found["torch"] is not ABSENT:
        list_operators()
        list_weights()


def version(package: str) -> str:
    """The version of an installed package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ABSENT


def report_torch() -> None:
    from vitlite.engine.distributed import decided, device_name, pick_device

    device = pick_device()
    precision = decided("auto", device)
    click.echo(f"device: {device} ({device_name(device)}); precision=auto trains in {precision}")


def report_operators() -> None:
    """Which operators run as eager torch, the slowest way, on the device that is used; and why."""
    from vitlite.engine.distributed import pick_device
    from vitlite.kernels import backends

    kind, found = pick_device().type, backends()
    slow = [op for op, own in found.items() if own["auto"].get(kind) == "eager"]
    if not slow:
        click.echo(f"fused operators: all {len(found)} are active")
        return
    reasons = dict.fromkeys(reason for op in slow for reason in found[op]["unavailable"].values())
    click.echo(f"fused operators: {len(slow)} of {len(found)} run as eager torch, which is slower: {', '.join(slow)}")
    for reason in reasons:
        click.echo(f"  {reason}")


def report_default_weights() -> None:
    from vitlite import backbones
    from vitlite.engine.settings import preset_config
    from vitlite.methods import DEFAULT

    name = vars(preset_config(DEFAULT, "quick"))["backbone"]
    click.echo(f"weights of the default method, {name} for {DEFAULT}: {backbones.whereabouts(name)}")


def report_export(found: dict[str, str]) -> None:
    """Whether exported files can be scored and written."""
    missing = [package for package in ("onnx", "onnxscript", "onnxruntime") if found[package] is ABSENT]
    if not missing:
        click.echo("ONNX files: can be written and scored")
    elif "onnxruntime" in missing:
        click.echo("ONNX files: cannot be scored; pip install onnxruntime")
    else:
        click.echo(f"ONNX files: can be scored, but not written; pip install {' '.join(missing)}")


def list_operators() -> None:
    from vitlite.cli._errors import about_instruction_set
    from vitlite.kernels import _extension, backends

    try:
        level = _extension.instruction_set()
    except RuntimeError as error:
        level = about_instruction_set(error)
    click.echo("operators:")
    click.echo(f"  instruction set of the compiled ones: {level or 'none is there'}")
    for op, found in backends().items():
        chosen = ", ".join(f"{backend} on {device}" for device, backend in found["auto"].items())
        click.echo(f"  {op}: {chosen}")
        for backend, reason in found["unavailable"].items():
            click.echo(f"    {backend} not available: {reason}")


def list_weights() -> None:
    from vitlite import backbones
    from vitlite.backbones import transformer_weights

    click.echo("backbone weights, with --weights auto:")
    for name in backbones.available():
        click.echo(f"  {name}: {backbones.whereabouts(name)}")
    click.echo("transformer weights, of methods that start from them:")
    for name in transformer_weights.PUBLISHED:
        click.echo(f"  {name}: {transformer_weights.whereabouts(name)}")
